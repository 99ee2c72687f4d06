"""`while_loop` and `fori_loop` over objects.

The whole argument is the carry. JAX takes out of the carry of `fori_loop` what comes back as it
went in. For `while_loop`, whose condition may read that, one abstract trace of the body tells which
arrays change: only these go round, the others are closed over, and what was traced is the body.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from weft._core.arguments import argument_paths, check_arrays
from weft._core.errors import StructureError
from weft._core.path import format_path
from weft._core.static import Static
from weft._core.tracebacks import boundary
from weft._graph.records import ValueDef, children_of
from weft._lift.carry import Look, check_arrays_out, check_carry, look_at, sources
from weft._lift.jit import placing
from weft._lift.jit.spec import Exit, Groups
from weft._lift.lift import Inside, Lift, Mode, Places, mode_of, name_of, unbind_all
from weft._lift.memo import run_kept
from weft._lift.naming import names_in, shown_as
from weft._variable.part import aval_text
from weft._variable.variable import Variable

T = TypeVar("T")

BODY, CONDITION = range(2)


class Traced(NamedTuple):
    """The body of a `while_loop`, traced.

    Attributes:
      arrays: the first carry.
      changing: positions of what changes.
      body: from a carry, what changes in it next.
      exit: the exit of the body.
      origin: where in the carry each array of the exit is.
    """

    arrays: list[Any]
    changing: tuple[int, ...]
    body: Callable[..., list[Any]]
    exit: Exit
    origin: tuple[int, ...]

    @property
    def first(self) -> list[Any]:
        """What changes, before the loop."""
        return _select(self.arrays, self.changing)

    def merge(self, changing: list[Any]) -> list[Any]:
        """Returns the whole carry."""
        merged = list(self.arrays)
        for i, array in zip(self.changing, changing, strict=True):
            merged[i] = array
        return merged


class RepeatLift(Lift):
    """A lift whose only argument is a carry.

    Args:
      transform: the transform's name.
      mode: see `Mode`.
      places: for each function which objects of bound methods are its own.
      skip: how many parameters the body has before the carry.
      functions: the body; for `while_loop` also the condition.
    """

    def __init__(
        self,
        transform: str,
        mode: Mode,
        places: Places,
        skip: int,
        *functions: Callable[..., Any],
    ):
        # The objects of bound methods go round with the carry.
        number = 1 + max(itertools.chain(*places), default=-1)
        without = min(len(places[0]) - number, 0)
        super().__init__(functions[0], transform, mode, bound=number, skip=without or skip)
        self.functions, self.places = functions, places

    def run_one(self, inside: Inside, function: int, *before: Any) -> Any:
        """Runs the body or the condition on the carry."""
        *holders, carry = inside.args
        own = (holders[i] for i in self.places[function])
        args = (*own, *before, carry)
        return self.run(inside._replace(args=args), self.functions[function])

    def step(
        self, spec: Any, arrays: list[Any], *before: Any
    ) -> tuple[list[Any], tuple[Exit, tuple[int, ...]]]:
        """Runs the body once: returns the next carry, and statically what comes out."""
        inside = self.rebuild(spec, [arrays])
        first = self._look_at(inside.args)
        out = self.run_one(inside, BODY, *before)
        second = self._look_at((*inside.args[:-1], out))
        check_carry(self, inside, first, second)
        groups, exit = self.collect(spec, inside, out)
        check_arrays_out(self, spec, exit, groups)
        carried = second.arrays
        return carried, (exit, sources(self, spec, exit, groups, 0, carried))

    def _look_at(self, carried: tuple[Any, ...]) -> Look:
        look = look_at(carried)
        assert isinstance(look.record, ValueDef)  # of the tuple
        paths = argument_paths(self.f, len(carried), self.skip, self.bound)
        names = tuple(format_path(path) for path in paths)
        children = tuple(child for _, child in children_of(look.record))
        return look._replace(record=ValueDef(tuple, names, children))

    def trace(self, spec: Any, arrays: list[Any]) -> Traced:
        """Traces the body, and once more if JAX promotes what the carry begins with."""
        traced, promoted = self._trace(spec, arrays)
        return traced if promoted is None else self._trace(spec, promoted)[0]

    def _trace(self, spec: Any, arrays: list[Any]) -> tuple[Traced, list[Any] | None]:
        from weft._core.jax_names import jaxpr_as_fun  # takes long to import

        def run(arrays: list[Any]) -> tuple[list[Any], Exit, Static]:
            carried, (exit, origin) = self.step(spec, arrays)
            pairs = zip(arrays, carried, strict=True)
            changing = tuple(i for i, (old, new) in enumerate(pairs) if old is not new)
            return [carried[i] for i in changing], exit, Static((changing, origin))

        shown = shown_as(self.f, run, lambda _: names_in(spec))
        jaxpr, (after, exit, found) = jax.make_jaxpr(shown, return_shape=True)(arrays)
        changing, origin = found.value
        traced = Traced(arrays, changing, jaxpr_as_fun(jaxpr), exit, origin)
        pairs = list(zip(traced.first, after, strict=True))
        if all(jax.typeof(x).dtype == y.dtype for x, y in pairs):
            return traced, None
        promoted = [jax.lax.convert_element_type(x, jnp.result_type(x, y)) for x, y in pairs]
        return traced, traced.merge(promoted)

    def test(self, spec: Any, arrays: list[Any]) -> Any:
        """Runs the condition, which may only read."""
        inside = self.rebuild(spec, [arrays])
        out = self.run_one(inside, CONDITION)
        _, exit = self.collect(spec, inside, None)
        for change in (*exit.written, *exit.changed):
            raise StructureError(
                f"the condition of nnx.while_loop writes "
                f"{format_path(spec.spots[change.index].path)}: it may only read. Write in the body"
            )
        return _truth(out, name_of(self.functions[CONDITION]))


def _truth(out: Any, name: str) -> Any:
    """Returns the one truth value that a condition returned, or raises TypeError."""
    if isinstance(out, Variable):
        out = out[...]
    is_number = isinstance(out, (bool, jax.Array, np.ndarray, np.generic))
    if is_number and np.ndim(out) == 0 and jnp.result_type(out) == jnp.bool_:
        return out
    found = "None" if out is None else aval_text(out)
    raise TypeError(
        f"the condition of nnx.while_loop, {name!r}, must return one truth value, found {found}: "
        "compare, as in `return carry < 5`, and join what is true of many by `jnp.all(...)` or "
        "`jnp.any(...)`"
    )


def _repeat(
    transform: str,
    mode: Mode,
    skip: int,
    functions: tuple[Callable[..., Any], ...],
    init_val: Any,
    run: Callable[..., tuple[Groups, Exit]],
    options: tuple[Any, ...] = (),
    bounds: tuple[Any, ...] = (),
) -> Any:
    """Runs a loop and writes its outcome back.

    Args:
      transform: the transform's name.
      mode: see `Mode`.
      skip: how many parameters the body has before the carry.
      functions: the body; for `while_loop` also the condition.
      init_val: the first carry.
      run: does it, given a lift, the options, the spec of a call, its arrays and the bounds.
      options: what is static.
      bounds: what is traced besides the carry.
    """
    unbound, holders, places = unbind_all(functions)
    lift = (transform, mode, places, skip)
    outer = RepeatLift(*lift, *unbound)
    call = outer.enter((*holders, init_val))
    check_arrays(transform, outer.name, call.entries)
    make = functools.partial(_make, run, lift, options)
    given = (*unbound, *functions)
    found = run_kept(given, (*lift, *options), make, call.spec, *call.groups, *bounds)
    return outer.leave(call, *found)


def _make(
    run: Callable[..., Any], lift: Any, options: Any, *functions: Callable[..., Any]
) -> Callable[..., Any]:
    unbound = functions[: len(functions) // 2]
    return functools.partial(run, RepeatLift(*lift, *unbound), *options)


@boundary
def while_loop(
    cond_fun: Callable[[T], Any],
    body_fun: Callable[[T], T],
    init_val: T,
    *,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> T:
    """Repeats a function while a condition holds.

    Args:
      cond_fun: function of the carry that returns a boolean scalar; it may not write.
      body_fun: function of the carry that returns the next carry, of the same structure.
      init_val: the first carry: objects and arrays.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Returns:
      The last carry; objects in it are the caller's own.

    Raises:
      StructureError: if the carry changes its structure, a shape or a dtype.

    Example:
      >>> import weft as nnx
      >>> count = nnx.Variable(0)
      >>> def body(v):
      ...     v[...] = v[...] + 1
      ...     return v
      >>> nnx.while_loop(lambda v: v[...] < 5, body, count) is count
      True
      >>> int(count[...])
      5
    """
    mode = mode_of(graph, graph_updates)
    return _repeat("while_loop", mode, 0, (body_fun, cond_fun), init_val, _run_while)


def _run_while(lift: RepeatLift, spec: Any, arrays: list[Any]) -> tuple[Groups, Exit]:
    arrays, places = placing.settle(lambda arrays: lift.step(spec, arrays)[0], arrays)
    traced = lift.trace(spec, arrays)
    names = _select(names_in(spec), traced.changing)
    changing = None if places is None else _select(places, traced.changing)
    condition, body = lift.functions[CONDITION], lift.functions[BODY]

    def step(x: list[Any]) -> list[Any]:
        return placing.put(traced.body(*traced.merge(x)), changing)

    last = jax.lax.while_loop(
        shown_as(condition, lambda x: lift.test(spec, traced.merge(x)), lambda _: names),
        shown_as(body, step, lambda _: names),
        traced.first,
    )
    return [_select(traced.merge(last), traced.origin)], traced.exit


def _select(values: list[Any], positions: tuple[int, ...]) -> list[Any]:
    return [values[i] for i in positions]


@boundary
def fori_loop(
    lower: Any,
    upper: Any,
    body_fun: Callable[[Any, T], T],
    init_val: T,
    *,
    unroll: int | bool | None = None,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> T:
    """Repeats a function for each integer of a range.

    Args:
      lower: the first integer.
      upper: one more than the last.
      body_fun: function `(i, carry)` that returns the next carry, of the same structure.
      init_val: the first carry: objects and arrays.
      unroll: as for `jax.lax.fori_loop`.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Returns:
      The last carry; objects in it are the caller's own.

    Raises:
      StructureError: if the carry changes its structure, a shape or a dtype.

    Example:
      >>> import weft as nnx
      >>> total = nnx.Variable(0)
      >>> def body(i, v):
      ...     v[...] = v[...] + i
      ...     return v
      >>> total = nnx.fori_loop(0, 5, body, total)
      >>> int(total[...])
      10
    """
    if not callable(body_fun):
        raise TypeError(
            f"nnx.fori_loop expects a function of index and carry as its third argument, found "
            f"{type(body_fun).__name__}: write `nnx.fori_loop(lower, upper, body, carry)`"
        )
    mode = mode_of(graph, graph_updates)
    # A range known in advance stays known, such that JAX can differentiate the loop.
    is_known = not isinstance(lower, Tracer) and not isinstance(upper, Tracer)
    bounds = (operator.index(lower), operator.index(upper)) if is_known else (lower, upper)
    known, unknown = (bounds, ()) if is_known else ((), bounds)
    return _repeat("fori_loop", mode, 1, (body_fun,), init_val, _run_fori, (unroll, known), unknown)


def _run_fori(
    lift: RepeatLift, unroll: Any, known: Any, spec: Any, arrays: list[Any], *unknown: Any
) -> tuple[Groups, Exit]:
    outcomes: list[tuple[Exit, tuple[int, ...]]] = []

    def body(i: Any, arrays: list[Any]) -> list[Any]:
        carried, outcome = lift.step(spec, arrays, i)
        outcomes.append(outcome)
        return placing.put(carried, places)

    first, last = known or unknown
    arrays, places = placing.settle(lambda x: lift.step(spec, x, jnp.asarray(first))[0], arrays)
    (index, *_), *_ = argument_paths(lift.f, 1 + lift.bound)[lift.bound :]
    shown = shown_as(lift.f, body, lambda _: [str(index), *names_in(spec)])
    arrays = jax.lax.fori_loop(first, last, shown, arrays, unroll=unroll)
    if not outcomes:  # no iteration, where nothing is traced
        jax.eval_shape(body, first, arrays)
    exit, origin = outcomes[-1]
    return [_select(arrays, origin)], exit
