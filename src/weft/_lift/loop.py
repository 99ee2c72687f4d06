"""`scan` over objects.

The groups are the carry, one per scanned axis, and what is broadcast. Only what is
written comes out: Variables in the carry go round, scanned ones become `ys`. What is broadcast goes
round as well, as a body may write it; JAX takes out of the carry what comes back as it went in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

import jax
import jax.numpy as jnp

from weft._core.arguments import argument_paths, check_arrays
from weft._core.errors import PrefixError, StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._core.tracebacks import boundary
from weft._core.types import MISSING, Missing
from weft._graph import prefix as prefixes
from weft._graph.records import ArrayDef, NodeDef, VariableDef, iter_records
from weft._graph.walk import items_of
from weft._lift import iterations
from weft._lift.carry import (
    Look,
    check_arrays_out,
    check_carry,
    check_same_aval,
    look_at,
    sources,
)
from weft._lift.jit import placing
from weft._lift.jit.spec import Call, Exit, Groups
from weft._lift.lift import Inside, mode_of
from weft._lift.lifted import lifted
from weft._lift.map import AxesLift, axis_names, check_axes
from weft._lift.memo import run_kept
from weft._lift.naming import names_by_group, shown_as
from weft._module.containers import DICT_ORDER
from weft._object.pytree import Pytree
from weft._variable.part import aval_text
from weft._variable.variable import Variable

if TYPE_CHECKING:
    from weft._lift.options import (  # pyright: ignore[reportMissingModuleSource]
        ScanOptions as ScanKeywords,
    )

P = ParamSpec("P")
R = TypeVar("R")


class _CarryType(type):
    def __repr__(cls) -> str:
        return "nnx.Carry"


class Carry(metaclass=_CarryType):
    """Marks the carry among the axes of `scan`: write `nnx.Carry`, the class itself.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> add = nnx.scan(lambda c, x: c + x, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
      >>> float(add(0.0, jnp.arange(4.0)))
      6.0
    """


def find_carry(axes: Any, path: Path = ()) -> list[Path]:
    """Returns the places of `Carry` in a tree of axes, those inside of an object excepted."""
    if axes is Carry:
        return [path]
    if isinstance(axes, (prefixes.PrefixMapping, Pytree)) or prefixes.is_leaf(axes):
        return []
    items = axes.items() if isinstance(axes, Mapping) else enumerate(axes)
    return [found for key, child in items for found in find_carry(child, (*path, key))]


def _get(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


class ScanOptions(NamedTuple):
    """What `jax.lax.scan` is told besides the body."""

    length: int | None
    reverse: bool
    unroll: int | bool
    split_transpose: bool


class Carried(NamedTuple):
    """Arrays that go from one iteration to the next: those of the carry, and what is broadcast."""

    own: list[Any]
    shared: list[Any]


_CARRIED = (Carry, None)
"""The prefixes of these two."""


class ScanLift(AxesLift):
    """A lift whose prefixes are axes and `Carry`."""

    def __init__(self, f: Any, mode: Any, in_axes: Any, out_axes: Any, metadata: Any, bound: int):
        is_single = in_axes is Carry
        in_axes = (in_axes,) if is_single else in_axes
        super().__init__(
            f,
            "scan",
            mode,
            in_prefix=in_axes,
            out_prefix=out_axes,
            check_outputs=True,
            axis_names=axis_names(metadata),
            bound=bound,
            bound_prefix=Carry,  # what a method writes on its object goes round
        )
        for keys in (self.in_keys, self.out_keys):
            if not any(key is Carry for key in keys):
                keys.append(Carry)
        self.carry_in = self._single_carry("in_axes", in_axes)
        self.carry_out = self._single_carry("out_axes", out_axes)
        if (self.carry_in is None) != (self.carry_out is None):
            raise PrefixError(
                f"nnx.scan of {self.name!r} needs nnx.Carry in both in_axes and out_axes, or in "
                f"neither:{self.signature()}"
            )

    def _single_carry(self, name: str, axes: Any) -> Path | None:
        found = find_carry(axes)
        if len(found) > 1:
            raise PrefixError(
                f"nnx.scan of {self.name!r} can have one nnx.Carry in {name}, found {len(found)}:"
                f"{self.signature()}\nPut all that is carried into one argument, `(a, b)`"
            )
        return found[0] if found else None

    def carry_path(self, number: int) -> Path | None:
        """Returns the path of the carry among the arguments of a call."""
        if self.carry_in is None:
            return None
        first, *inner = self.carry_in
        paths = argument_paths(self.f, number + self.bound)
        return (*paths[first + self.bound], *inner)

    def _check_places(self, out: Any) -> None:
        """Raises unless as many values are returned as `out_axes` has places.

        Raises:
          PrefixError: see above.
        """
        places = self.out_prefix
        number = len(out) if isinstance(out, (tuple, list)) else -1
        if type(places) not in (tuple, list) or number == len(places):
            return
        found = f"{number} values" if number != 1 else "a tuple of one value"
        if number < 0:
            found = "None" if out is None else aval_text(out)
        missing = self.carry_out is not None and number <= self.carry_out[0]
        raise PrefixError(
            f"nnx.scan of {self.name!r} returns {found}"
            + (" without the place that out_axes gives to nnx.Carry" if missing else "")
            + f". `out_axes` has {len(places)} places: return as many values, as in `return carry, "
            f"y`, or the carry alone with `out_axes=nnx.Carry`:{self.signature()}"
        )

    def body(
        self, spec: Any, carried: Carried, xs: Groups, number: Any = None, is_reversed: bool = False
    ) -> Any:
        """Runs one iteration: returns what goes on to the next, and what is stacked."""
        inside = self.rebuild(spec, self._groups(carried, xs))
        before = None
        carry_path: Path | None = None
        if self.carry_in is not None:
            first, *inner = self.carry_in
            carry_path = self.carry_path(len(inside.args) - self.bound)
            before = look_at(_get(inside.args[first + self.bound], tuple(inner)))
        if number is None:
            out = self.run(inside)
        else:
            at = next(iterations.order), number, is_reversed, self._sliced(spec, inside)
            with iterations.running(iterations.Iteration(*at)):
                out = self.run(inside)
        self._check_places(out)
        after = None
        if before is not None:
            try:
                after = look_at(_get(out, self.carry_out))  # type: ignore[arg-type]
            except (TypeError, KeyError, IndexError):
                raise PrefixError(
                    f"nnx.scan of {self.name!r} returns a {type(out).__name__} without the place "
                    f"that out_axes gives to nnx.Carry:{self.signature()}"
                ) from None
            check_carry(self, inside, before, after, carry_path or (), self.signature())
        carried = self._next(spec, inside, before, after)
        out_groups, exit = self.collect(spec, inside, out)
        check_arrays_out(self, spec, exit, out_groups)
        self.check_ranks(spec, out_groups, exit)
        self._check_exit(spec, exit)
        origins = []
        for key, arrays in zip(_CARRIED, carried, strict=True):
            group = prefixes.position(key, self.out_keys)
            if key is None:
                self._check_unmapped(spec, exit, out_groups[group], arrays)
            origins.append(sources(self, spec, exit, out_groups, group, arrays))
            out_groups[group] = []
        return carried, (out_groups, exit, Static(tuple(origins)))

    def _sliced(self, spec: Any, inside: Inside) -> list[Any]:
        """Returns the objects of which an iteration has a slice, with those that they are in."""
        leaves = zip(spec.entries, spec.grouping, strict=True)
        paths = [entry.path for entry, group in leaves if isinstance(self.in_keys[group], int)]
        return [
            obj
            for obj, spot in zip(inside.objects, inside.spots, strict=True)
            if any(path[: len(spot.path)] == spot.path for path in paths)
        ]

    def names(self, spec: Any) -> list[str]:
        """Returns the paths of what the body is given."""
        found = names_by_group(spec)
        keys = [*_CARRIED, *(key for key in self.in_keys if isinstance(key, int))]
        groups = [prefixes.position(key, self.in_keys) for key in keys]
        return [name for group in groups for name in found.get(group, ())]

    def _groups(self, carried: Carried, xs: Groups) -> Groups:
        scanned = iter(xs)
        return [
            next(scanned) if isinstance(key, int) else carried[_CARRIED.index(key)]
            for key in self.in_keys
        ]

    def _next(self, spec: Any, inside: Inside, before: Look | None, after: Look | None) -> Carried:
        """Returns what goes on to the next iteration, and checks that it may."""
        known: dict[int, list[Any]] = {}
        if before is not None and after is not None:
            pairs = zip(before.values, after.leaves, strict=True)
            known = {id(value): leaves for value, leaves in pairs}
        rebound = {id(old): new for old, new in _rebound_arrays(inside)}
        befores = {id(inside.objects[i]): before[0] for i, before in inside.before.items()}
        carried = Carried([], [])
        for group, entry, value in zip(spec.grouping, spec.entries, inside.leaves, strict=True):
            key = self.in_keys[group]
            if isinstance(key, int):
                continue
            leaves = known.get(id(value))
            if leaves is None:
                is_variable = isinstance(value, Variable)
                old = befores[id(value)] if is_variable else value
                new = value._raw if is_variable else rebound.get(id(value), value)
                self._check_same(entry.path, old, new)
                leaves = jax.tree.leaves(new)
            (carried.own if key is Carry else carried.shared).extend(leaves)
        return carried

    def _check_same(self, path: Path, before: Any, after: Any) -> None:
        """Raises if what is carried without being returned changes structure, shape or dtype."""
        name = f"what nnx.scan of {self.name!r} carries"
        old, structure = before if isinstance(before, tuple) else jax.tree.flatten(before)
        new, found = jax.tree.flatten(after)
        if found != structure:
            raise StructureError(
                f"{name} must keep its structure from one iteration to the next: "
                f"{format_path(path)} was {structure} before and is {found} after. Give the "
                "Variable its whole structure before the call"
            )
        for one, other in zip(old, new, strict=True):
            check_same_aval(name, path, one, other)

    def _check_exit(self, spec: Any, exit: Exit) -> None:
        if not exit.changed:
            return
        nodes = {r.index: r for _, r in iter_records(spec.record) if isinstance(r, NodeDef)}
        for change in exit.changed:
            spot = spec.spots[change.index]
            had = frozenset(nodes[change.index].keys) - {DICT_ORDER}
            for key, child in zip(change.keys, change.children, strict=True):
                if isinstance(child, Static) and key in had:
                    raise StructureError(
                        f"nnx.scan of {self.name!r} changes the static attribute "
                        f"{format_path((*spot.path, key))} to {child.value!r}: the body is traced "
                        "once for all iterations. Hold it in a Variable: `nnx.Variable(value)`"
                    )

    def _check_unmapped(self, spec: Any, exit: Exit, arrays: list[Any], shared: list[Any]) -> None:
        """Raises if what each iteration makes anew is said to be the same for all of them."""
        known = set(map(id, shared))
        if all(id(array) in known for array in arrays):
            return
        nodes = {r.index: r for _, r in iter_records(spec.record) if isinstance(r, NodeDef)}
        new = [
            format_path((*spec.spots[change.index].path, key))
            for change in exit.changed
            for key, child in zip(change.keys, change.children, strict=True)
            if isinstance(child, (VariableDef, NodeDef, ArrayDef))
            and key not in nodes[change.index].keys
        ]
        what = f"adds {', '.join(new)}" if new else "returns a value"
        raise PrefixError(
            f"nnx.scan of {self.name!r} {what} under the axis None, but every iteration makes "
            f"another: stack them (axis 0) or carry them (nnx.Carry):{self.signature()}"
        )


def _rebound_arrays(inside: Inside) -> Iterator[tuple[Any, Any]]:
    """Yields the arrays that objects held as attributes, with what they hold there now."""
    for index, obj in enumerate(inside.objects):
        if not isinstance(obj, Variable):
            now = dict(items_of(obj))
            for key, old, _ in inside.before[index][0]:
                if isinstance(old, jax.Array) and isinstance(now.get(key), jax.Array):
                    yield old, now[key]


@overload
def scan(f: Callable[P, R], **options: Unpack[ScanKeywords]) -> Callable[P, R]: ...
@overload
def scan(
    f: Missing = ..., **options: Unpack[ScanKeywords]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@boundary
def scan(
    f: Any = MISSING,
    *,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    _split_transpose: bool = False,
    in_axes: Any = (Carry, 0),
    out_axes: Any = (Carry, 0),
    transform_metadata: Mapping[str, Any] = {},
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Runs a function over slices of its arguments, from one to the next with a carry.

    Args:
      f: the function of one iteration. If missing, a decorator with the options is returned.
      length: number of iterations, where no argument is scanned.
      reverse: whether to start with the last slice.
      unroll: how many iterations to unroll, as for `jax.lax.scan`.
      in_axes: for each positional argument `nnx.Carry`, the axis it is scanned over, None to
        broadcast it, a container of these, or a `StateAxes` for an object. Keyword-only arguments
        are broadcast, and the object of a bound method is carried. What is written of a broadcast
        object is there in the next iteration.
      out_axes: `nnx.Carry` and axes of what is returned.
      transform_metadata: `{nnx.PARTITION_NAME: name}` keeps sharding metadata right.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Returns:
      A function of all slices that returns the last carry and the stacked outputs.

    Raises:
      PrefixError: if axes do not fit.
      StructureError: if the carry changes its structure, a shape or a dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> @nnx.split_rngs(splits=5)
      ... @nnx.vmap
      ... def make_layers(rngs):
      ...     return nnx.Linear(4, 4, rngs=rngs)
      >>> @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
      ... def forward(x, layer):
      ...     return nnx.relu(layer(x))
      >>> forward(jnp.ones((2, 4)), make_layers(nnx.Rngs(0))).shape
      (2, 4)
    """
    options = ScanOptions(length, reverse, unroll, _split_transpose)

    given = (mode_of(graph, graph_updates), in_axes, out_axes, dict(transform_metadata))

    def apply(lift: ScanLift, call: Call) -> Any:
        check_arrays("scan", lift.name, call.entries)
        check_axes(call, lift, length, "length")
        chosen = ("scan", options, *given, lift.bound)
        make = functools.partial(_make, options, given, lift.bound)
        found = run_kept((lift.f, lift.given), chosen, make, call.spec, *_part(lift, call))
        return lift.leave(call, *found)

    return lifted(f, lambda function, bound: ScanLift(function, *given, bound), apply)


def _make(
    options: ScanOptions,
    given: tuple[Any, Any, Any, Any],
    bound: int,
    function: Callable[..., Any],
    _: Any,
) -> Callable[..., Any]:
    return functools.partial(_scan, ScanLift(function, *given, bound), options)


def _part(lift: ScanLift, call: Call) -> tuple[Carried, Groups]:
    keyed = list(zip(lift.in_keys, call.groups, strict=True))
    own, shared = ([array for key, xs in keyed if key is kind for array in xs] for kind in _CARRIED)
    return Carried(own, shared), [group for key, group in keyed if isinstance(key, int)]


def _scan(
    lift: ScanLift, options: ScanOptions, spec: Any, carried: Carried, xs: Groups
) -> tuple[Groups, Exit]:
    axes = [key for key in lift.in_keys if isinstance(key, int)]
    xs = [
        [x if axis == 0 else jnp.moveaxis(x, axis, 0) for x in group]
        for axis, group in zip(axes, xs, strict=True)
    ]

    def step(carried: Carried, given: tuple[Any, Groups]) -> Any:
        number, xs = given
        after, out = lift.body(spec, carried, xs, number, options.reverse)
        return placing.put(after, places), out

    def names(_: Any) -> list[str]:
        return lift.names(spec)

    def once(carried: Carried) -> Carried:
        slices = jax.tree.map(lambda x: jax.lax.index_in_dim(x, 0, keepdims=False), xs)
        body = functools.partial(lift.body, spec)
        return shown_as(lift.f, body, names)(carried, slices)[0]

    is_empty = any(x.shape[0] == 0 for x in jax.tree.leaves(xs))
    carried, places = (carried, None) if is_empty else placing.settle(once, carried)
    numbers = None
    if iterations.state.are_wanted:
        lengths = [x.shape[0] for x in jax.tree.leaves(xs)]
        numbers = jnp.arange(lengths[0] if lengths else options.length)
    last, (ys, exit, origins) = jax.lax.scan(
        shown_as(lift.f, step, names),
        carried,
        (numbers, xs),
        length=options.length,
        reverse=options.reverse,
        unroll=options.unroll,
        _split_transpose=options.split_transpose,
    )
    own, shared = (
        [arrays[i] for i in origin] for arrays, origin in zip(last, origins.value, strict=True)
    )
    groups = []
    for key, group in zip(lift.out_keys, ys, strict=True):
        if key is Carry:
            groups.append(own)
        elif key is None:
            groups.append(shared)
        elif isinstance(key, int) and key != 0:
            groups.append([jnp.moveaxis(y, 0, key) for y in group])
        else:
            groups.append(group)
    return groups, exit
