"""`while_loop` and `fori_loop` over objects.

The whole argument is the carry. One abstract trace of the body tells which arrays of it change;
only these go round, the others are closed over.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from weft._errors import StructureError
from weft._graph.records import ValueDef, children_of
from weft._lift.arguments import argument_paths
from weft._lift.carry import Look, check_carry, look_at, sources
from weft._lift.lift import Call, Exit, Groups, Inside, Lift, Mode, mode_of, unbind_all
from weft._lift.memo import compiled_once
from weft._path import format_path
from weft._static import Static
from weft._tracebacks import boundary

BODY, CONDITION = range(2)


class Plan(NamedTuple):
    """Which arrays of a carry change, and what comes out of the loop.

    Attributes:
      arrays: the first carry.
      changing: positions of what changes.
      exit: the exit of the body.
      origin: where in the carry each array of the exit is.
    """

    arrays: list[Any]
    changing: tuple[int, ...]
    exit: Exit
    origin: tuple[int, ...]

    def select(self, arrays: list[Any]) -> list[Any]:
        return [arrays[i] for i in self.changing]

    def merge(self, changing: list[Any]) -> list[Any]:
        merged = list(self.arrays)
        for i, array in zip(self.changing, changing, strict=True):
            merged[i] = array
        return merged

    def finish(self, changing: list[Any]) -> tuple[Groups, Exit]:
        merged = self.merge(changing)
        return [[merged[i] for i in self.origin]], self.exit


class RepeatLift(Lift):
    """A lift whose only argument is a carry.

    Args:
      functions: the body; for `while_loop` also the condition.
      skip: how many parameters the body has before the carry.
    """

    def __init__(
        self, transform: str, mode: Mode, functions: tuple[Callable[..., Any], ...], skip: int = 0
    ):
        # The object of a bound method goes round with the carry.
        self.functions, self.holders, self.places = unbind_all(functions)
        number = len(self.holders)
        without = min(len(self.places[0]) - number, 0)
        super().__init__(self.functions[0], transform, mode, bound=number, skip=without or skip)

    def enter_loop(self, init_val: Any) -> Call:
        """Takes the carry apart, the objects of bound methods first."""
        call = self.enter((*self.holders, init_val))
        self.holders = ()  # what is kept between calls may not hold data
        return call

    def run_one(self, inside: Inside, function: int, *before: Any) -> Any:
        """Runs the body or the condition on the carry."""
        *holders, carry = inside.args
        own = (holders[i] for i in self.places[function])
        args = (*own, *before, carry)
        return self.run(inside._replace(args=args), self.functions[function])

    def step(self, spec: Any, arrays: list[Any], *before: Any) -> tuple[list[Any], Any]:
        """Runs the body once: returns the next carry, and statically what comes out."""
        inside = self.rebuild(spec, [arrays])
        first = self._look_at(inside.args)
        out = self.run_one(inside, BODY, *before)
        second = self._look_at((*inside.args[:-1], out))
        check_carry(self, inside, first, second)
        groups, exit = self.collect(spec, inside, out)
        carried = second.arrays
        return carried, (exit, sources(self, spec, exit, groups, 0, carried))

    def _look_at(self, carried: tuple[Any, ...]) -> Look:
        look = look_at(carried)
        assert isinstance(look.record, ValueDef)  # of the tuple
        paths = argument_paths(self.f, len(carried), self.skip, self.bound)
        names = tuple(format_path(path) for path in paths)
        children = tuple(child for _, child in children_of(look.record))
        return look._replace(record=ValueDef(tuple, names, children))

    def plan(self, spec: Any, arrays: list[Any], *before: Any) -> Plan:
        """Traces the body once to see what changes."""

        def run(arrays: list[Any], before: tuple[Any, ...]) -> tuple[Exit, Static]:
            carried, (exit, origin) = self.step(spec, arrays, *before)
            pairs = zip(arrays, carried, strict=True)
            changing = tuple(i for i, (old, new) in enumerate(pairs) if old is not new)
            return exit, Static((changing, origin))

        exit, found = jax.eval_shape(run, arrays, before)
        changing, origin = found.value
        return Plan(arrays, changing, exit, origin)

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
        return out

    def repeat(self, call: Call, loop: Callable[..., Any], *args: Any) -> Any:
        """Runs a loop and writes its outcome back."""
        groups, exit = loop(call.spec, call.groups[0], *args)
        return self.leave(call, groups, exit)


@boundary
def while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    *,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
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
    lift = RepeatLift("while_loop", mode_of(graph, graph_updates), (body_fun, cond_fun))
    call = lift.enter_loop(init_val)

    def run(spec: Any, arrays: list[Any]) -> tuple[Groups, Exit]:
        plan = lift.plan(spec, arrays)
        final = jax.lax.while_loop(
            lambda changing: lift.test(spec, plan.merge(changing)),
            lambda changing: plan.select(lift.step(spec, plan.merge(changing))[0]),
            plan.select(arrays),
        )
        return plan.finish(final)

    key = ("while_loop", lift.mode, lift.places)
    return lift.repeat(call, compiled_once(lift.functions, key, lambda: run))


@boundary
def fori_loop(
    lower: Any,
    upper: Any,
    body_fun: Callable[[Any, Any], Any],
    init_val: Any,
    *,
    unroll: int | bool | None = None,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
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
    lift = RepeatLift("fori_loop", mode_of(graph, graph_updates), (body_fun,), skip=1)
    call = lift.enter_loop(init_val)
    # A range known in advance stays known, such that JAX can differentiate the loop.
    is_known = not isinstance(lower, Tracer) and not isinstance(upper, Tracer)
    known: Any = (operator.index(lower), operator.index(upper)) if is_known else ()

    def run(spec: Any, arrays: list[Any], *bounds: Any) -> tuple[Groups, Exit]:
        first, last = bounds or known
        plan = lift.plan(spec, arrays, first)
        final = jax.lax.fori_loop(
            first,
            last,
            lambda i, changing: plan.select(lift.step(spec, plan.merge(changing), i)[0]),
            plan.select(arrays),
            unroll=unroll,
        )
        return plan.finish(final)

    key = ("fori_loop", lift.mode, lift.places, unroll, known)
    loop = compiled_once(lift.functions, key, lambda: run)
    return lift.repeat(call, loop, *(() if is_known else (lower, upper)))
