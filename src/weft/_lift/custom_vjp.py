"""`custom_vjp`: functions of objects with a backward rule of their own.

JAX differentiates a function of lists of arrays. Its rules rebuild the objects, run the user's
rules and translate: residuals may hold objects, and gradients have the form of tangents.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.arguments import as_tuple, takes_keyword
from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._core.tracebacks import boundary
from weft._core.types import ARRAY_TYPES, MISSING, Missing
from weft._graph.records import NodeDef, Ref, VariableDef, leaves_of
from weft._graph.walk import Builder, Flattener, make_variable
from weft._lift.autodiff import DiffState
from weft._lift.jit.spec import Exit
from weft._lift.lift import (
    Lift,
    Mode,
    argument_paths,
    mode_of,
    name_of,
    put_together,
    raw_leaves,
    value_from,
)
from weft._lift.naming import names_below, names_in, shown_as
from weft._lift.tangents import form_tangent, leaves_by_path, match

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class Rules(NamedTuple):
    """The forward and the backward rule."""

    fwd: Callable[..., Any]
    bwd: Callable[..., Any]


class CustomVjp(Generic[P, R]):
    """A function whose gradient is given by rules; made by `custom_vjp`."""

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self, fun: Callable[P, R], nondiff_argnums: tuple[int | DiffState, ...], mode: Mode
    ):
        functools.update_wrapper(self, fun, updated=())
        _check_argnums(fun, nondiff_argnums, mode)
        self._f = fun
        self._nondiff = nondiff_argnums
        self._mode = mode
        self._rules: Rules | None = None

    def defvjp(
        self,
        fwd: Callable[..., Any],
        bwd: Callable[..., Any],
        symbolic_zeros: bool = False,
        optimize_remat: bool = False,
    ) -> None:
        """Sets the rules.

        Args:
          fwd: takes the function's arguments and returns `(result, residuals)`; residuals may
            hold objects. It must write what the function writes.
          bwd: takes the arguments of `nondiff_argnums`, the residuals and a cotangent, and
            returns one gradient per differentiable argument: for an object a State, pure dict or
            object with the Variables that have one; None for none. The cotangent is a pair: for
            each argument the State of cotangents of its Variables after the call (None for arrays),
            and the cotangent of the result. With `graph=False` or `graph_updates=False` it is the
            latter alone, and a parameter `updates_g` of `bwd` is given a tuple with an entry for
            each argument: an object like it with the cotangents of the Variables that were
            written, and None in the places of the others; None for what is no object.
          symbolic_zeros: must be False.
          optimize_remat: must be False.

        Raises:
          ValueError: for options that are not supported.
        """
        if symbolic_zeros or optimize_remat:
            raise ValueError(
                "custom_vjp of objects has no symbolic_zeros and no optimize_remat: leave them "
                "out, or use `jax.custom_vjp` on arrays"
            )
        self._rules = Rules(fwd, bwd)

    @boundary
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._rules is None:
            raise ValueError(
                f"custom_vjp of {name_of(self._f)!r} has no rules yet: `f.defvjp(fwd, bwd)`"
            )
        args = _positional(self._f, args, kwargs)  # type: ignore[assignment]
        number = len(args)
        entries = {_position(self._f, entry, number): entry for entry in self._nondiff}
        nondiff = {i: args[i] for i, x in entries.items() if not isinstance(x, DiffState)}
        positions = [i for i in range(number) if i not in nondiff]

        def full(differentiable: tuple[Any, ...]) -> list[Any]:
            placed = dict(zip(positions, differentiable, strict=True)) | nondiff
            return [placed[i] for i in range(number)]

        lift = Lift(_Named(self._f, positions), "custom_vjp", self._mode)
        call = lift.enter(tuple(args[i] for i in positions))
        avals = [list(map(jax.typeof, raw_leaves(entry.value))) for entry in call.entries]
        selection = Flattener(arguments=True)  # walks as the lift does
        for i in positions:
            selection.flatten(args[i], (), entries.get(i, True))
        selected = [bool(entry.prefix) for entry in selection.entries]
        places = [positions.index(i) if i in positions else None for i in range(number)]
        given = tuple(nondiff.values())
        run = _Run(lift, call.spec, self._rules, full, given, avals, selected, places)
        transformed = jax.custom_vjp(shown_as(self._f, run.primal, run.names))
        transformed.defvjp(
            shown_as(self._rules.fwd, run.forward, run.names),
            shown_as(self._rules.bwd, run.backward, _names_of_residuals),
        )
        groups, exit = transformed(call.groups)
        return lift.leave(call, groups, exit)

    @overload
    def __get__(self, obj: None, kind: type) -> Self: ...
    @overload
    def __get__(
        self: CustomVjp[Concatenate[Any, Q], S], obj: object, kind: type | None = None
    ) -> Callable[Q, S]: ...
    def __get__(self, obj: Any, kind: type | None = None) -> Any:
        return self if obj is None else functools.partial(self, obj)


class _Named:
    """The function as the lift sees it: only its differentiable parameters."""

    def __init__(self, f: Callable[..., Any], positions: list[int]):
        self.__qualname__ = name_of(f)
        try:
            parameters = list(inspect.signature(f).parameters.values())
            self.__signature__ = inspect.Signature([parameters[i] for i in positions])
        except (TypeError, ValueError, IndexError):  # builtins, and *args
            self.__signature__ = inspect.Signature([])
        self.f = f

    def __call__(self, *args: Any) -> Any:
        return self.f(*args)


def _check_argnums(f: Callable[..., Any], nondiff_argnums: tuple[Any, ...], mode: Mode) -> None:
    numbers = []
    for entry in nondiff_argnums:
        numbers.append(entry.argnum if isinstance(entry, DiffState) else entry)
        if not isinstance(numbers[-1], int) or isinstance(numbers[-1], bool):
            raise TypeError(
                f"nondiff_argnums must be ints or nnx.DiffState, found {entry!r}: "
                "`nondiff_argnums=(1,)` or `nondiff_argnums=(nnx.DiffState(0, nnx.Param),)`"
            )
        if isinstance(entry, DiffState) and not mode.gives_states:
            raise ValueError(
                f"custom_vjp of {name_of(f)!r} has {entry!r} in nondiff_argnums, and graph=False "
                "or graph_updates=False: then the gradient of an object is one of its type, all "
                "of it. Use `graph=True, graph_updates=True`, or take the object apart, "
                "`params, rest = nnx.unpack(model, nnx.Param, ...)`, and differentiate one part"
            )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"nondiff_argnums names an argument twice: {nondiff_argnums!r}")


def _position(f: Callable[..., Any], entry: int | DiffState, number: int) -> int:
    argnum = entry.argnum if isinstance(entry, DiffState) else entry
    if not -number <= argnum < number:
        raise ValueError(
            f"nondiff_argnums of custom_vjp of {name_of(f)!r} asks for argument {argnum}, but the "
            f"call has {number}: give a position from 0 to {number - 1}"
        )
    return argnum % number


def _positional(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple:
    """Returns all arguments by position, defaults included, as the rules take them."""
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # builtins have none
        return args
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise TypeError(
            f"custom_vjp of {name_of(f)!r} cannot differentiate keyword-only arguments "
            f"{sorted(bound.kwargs)}: make them positional"
        )
    return bound.args


class _Run(NamedTuple):
    """One call: the three functions that JAX is given.

    JAX may keep them in the trace whose tracers the call was given, so they hold none of these.
    """

    lift: Lift
    spec: Any
    rules: Rules
    full: Callable[[tuple[Any, ...]], list[Any]]
    nondiff: tuple[Any, ...]
    avals: list[list[Any]]
    selected: list[bool]
    places: list[int | None]

    def names(self, args: Any) -> list[str]:
        return names_in(self.spec)

    def primal(self, groups: list[list[Any]]) -> tuple[list[list[Any]], Exit]:
        inside = self.lift.rebuild(self.spec, groups)
        out = self.lift.run(inside, lambda *args: self.lift.f.f(*self.full(args)))  # type: ignore[attr-defined]
        return self.lift.collect(self.spec, inside, out)

    def forward(self, groups: list[list[Any]]) -> Any:
        inside = self.lift.rebuild(self.spec, groups)
        result = self.lift.run(inside, lambda *args: self.rules.fwd(*self.full(args)))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"the forward rule of custom_vjp of {self.lift.name!r} must return a pair "
                f"`(result, residuals)`, found {type(result).__name__}"
            )
        out, residuals = result
        flattener = Flattener(arguments=True)
        record = flattener.flatten(residuals, ("residuals",))
        saved = [raw_leaves(entry.value) for entry in flattener.entries]
        out_groups, exit = self.lift.collect(self.spec, inside, out)
        return (out_groups, exit), (saved, Static(record), exit)

    def backward(self, residuals: Any, cotangents: Any) -> tuple[list[list[Any]]]:
        saved, record, exit = residuals
        restored = put_together(record.value, itertools.chain.from_iterable(saved))
        remaining = iter(cotangents[0][0])
        written = {w.index: value_from(w.treedef, remaining) for w in exit.written}
        for change in exit.changed:
            _drop_leaves(change.children, remaining)
        mode = self.lift.mode
        out = form_tangent(exit.out, itertools.repeat(True), remaining, mode)
        cotangent = (self._of_inputs(written), out) if mode.gives_states else out
        wants_updates = not mode.gives_states and takes_keyword(self.rules.bwd, "updates_g")
        updates = {"updates_g": self._of_written(written)} if wants_updates else {}
        result = self.rules.bwd(*self.nondiff, restored, cotangent, **updates)
        return ([self._gradients(result)],)

    def _of_inputs(self, written: dict[int, Any]) -> tuple[Any, ...]:
        """Returns the cotangents of the arguments' Variables as they are after the call."""
        values: list[Any] = []
        for (_, record), avals in zip(leaves_of(self.spec.record), self.avals, strict=True):
            if isinstance(record, VariableDef) and record.index in written:
                values.extend(jax.tree.leaves(written[record.index]))
            else:
                values.extend(map(_zero_cotangent, avals))
        remaining, is_chosen = iter(values), itertools.repeat(True)
        formed = [
            form_tangent(record, is_chosen, remaining, self.lift.mode)
            for record in self.spec.record.children
        ]
        return tuple(None if isinstance(x, ARRAY_TYPES) else x for x in formed)

    def _of_written(self, written: dict[int, Any]) -> tuple[Any, ...]:
        """Returns the cotangents of the Variables that were written, in copies of the objects."""

        def variable(record: VariableDef) -> Any:
            return make_variable(record, written[record.index]) if record.index in written else None

        builder = Builder(variable, lambda: None)
        formed = [
            builder.build(record) if isinstance(record, (NodeDef, VariableDef, Ref)) else None
            for record in self.spec.record.children
        ]
        return tuple(None if i is None else formed[i] for i in self.places)

    def _gradients(self, result: Any) -> list[Any]:
        number = len(self.spec.record.children)
        result = result if isinstance(result, (tuple, list)) else (result,)
        if len(result) != number:
            raise StructureError(
                f"the backward rule of custom_vjp of {self.lift.name!r} must return {number} "
                f"gradients, one per differentiable argument, found {len(result)}"
            )
        given: dict[Path, Any] = {}
        paths = self._argument_paths()
        for path, gradient in zip(paths, result, strict=True):
            if gradient is not None:
                given.update(leaves_by_path(gradient, path))
        what = f"the backward rule of custom_vjp of {self.lift.name!r} has gradients"
        arrays: list[Any] = []
        places = [(e.path, own) for e, own in zip(self.spec.entries, self.avals, strict=True)]
        for (path, _), is_selected in zip(places, self.selected, strict=True):
            if path in given and not is_selected:
                raise StructureError(
                    f"{what} for {format_path(path)}, which its DiffState does not select: leave "
                    f"it out of the State that the rule returns, `del grads[{path[-1]!r}]`"
                )
        for own, found in zip(self.avals, match(places, given, what), strict=True):
            # JAX takes None for the cotangent of what has none: integers, keys, what was left out.
            arrays.extend(
                g if g is not None and jnp.issubdtype(x.dtype, jnp.inexact) else None
                for x, g in zip(own, found or [None] * len(own), strict=True)
            )
        return arrays

    def _argument_paths(self) -> list[Path]:
        return argument_paths(self.lift.f, len(self.spec.record.children))


def _names_of_residuals(args: Any) -> list[str]:
    """Returns what to call the arrays that the backward rule is made of."""
    (_, record, _), cotangents = args
    of_result = [f"cotangent[{i}]" for i, _ in enumerate(jax.tree.leaves(cotangents))]
    return [*names_below(record.value, ("residuals",)), *of_result]


def _zero_cotangent(x: Any) -> Any:
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros(x.shape, x.dtype)
    return np.zeros(x.shape, jax.dtypes.float0)  # what JAX gives for integers and keys


def _drop_leaves(records: Any, values: Any) -> None:
    """Passes over the cotangents of structure that the function added."""
    for record in records:
        form_tangent(record, itertools.repeat(True), values, Mode(True, True))


@overload
def custom_vjp(
    fun: Callable[P, R],
    *,
    nondiff_argnums: int | DiffState | Sequence[int | DiffState] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> CustomVjp[P, R]: ...
@overload
def custom_vjp(
    fun: Missing = ...,
    *,
    nondiff_argnums: int | DiffState | Sequence[int | DiffState] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Callable[[Callable[P, R]], CustomVjp[P, R]]: ...
def custom_vjp(
    fun: Any = MISSING,
    *,
    nondiff_argnums: int | DiffState | Sequence[int | DiffState] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Gives a function of objects a backward rule of its own, as `jax.custom_vjp` does for arrays.

    Args:
      fun: the function. If missing, a decorator with the options is returned.
      nondiff_argnums: positions of arguments that are not differentiated; `bwd` gets them first.
        An `nnx.DiffState` says of which Variables of an argument there are gradients, and `bwd`
        returns a State of these.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only, and, like `graph`, for the convention of
        `jax.custom_vjp`; None for the setting.

    Returns:
      A `CustomVjp`; call its `defvjp(fwd, bwd)`.

    Raises:
      TypeError: for a position that is no int.
      ValueError: for positions that are given twice, and a DiffState where gradients are objects.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> @nnx.custom_vjp
      ... def forward(model, x):
      ...     return model(x)
      >>> def fwd(model, x):
      ...     return forward(model, x), (model, x)
      >>> def bwd(residuals, cotangents):
      ...     model, x = residuals
      ...     _, dy = cotangents
      ...     clipped = jnp.clip(dy, -0.5, 0.5)
      ...     return {"kernel": x.T @ clipped, "bias": clipped.sum(0)}, clipped @ model.kernel.T
      >>> forward.defvjp(fwd, bwd)
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> grads = nnx.grad(lambda m: forward(m, jnp.ones((3, 2))).sum())(model)
      >>> float(grads.bias[0])
      1.5
    """

    is_single = isinstance(nondiff_argnums, DiffState)
    argnums = (nondiff_argnums,) if is_single else as_tuple(nondiff_argnums)

    def wrap(f: Callable[..., Any]) -> CustomVjp[..., Any]:
        return CustomVjp(f, argnums, mode_of(graph, graph_updates))

    return wrap if isinstance(fun, Missing) else wrap(fun)
