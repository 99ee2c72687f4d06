"""Plans: what is remembered of one call's objects, so that the next call does not walk them.

A *plan* knows the Variables of a call in order, and the program to run on their arrays. It is kept
by the first object among the arguments (so that it dies with it), refers to all objects weakly,
and is valid until their structure changes: objects report that themselves, and then the plan is
forgotten.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.tree_util as jtu

from weft._core.arguments import leaf_paths
from weft._core.types import NO_PLANS, Root
from weft._graph.memory import Memory, slots_of
from weft._graph.records import ValueDef
from weft._graph.snapshot import Snapshot
from weft._graph.walk import Flattener
from weft._lift.jit.operands import Operands
from weft._lift.jit.pattern import Pattern, getter, is_root
from weft._lift.jit.program import ARRAYS, KEPT, Program
from weft._lift.jit.spec import Call, Spec, Written
from weft._lift.lift import Lift
from weft._object.pytree import Pytree
from weft._variable.bulk import expose
from weft._variable.keeper import is_part
from weft._variable.part import check_apart
from weft._variable.variable import Variable

_MOST = 16
_MOST_THREADS = 16
_first = threading.Lock()

Plans = dict[object, dict[int, list["Plan"]]]
"""The plans that an object keeps, by whom they are for and by thread."""


class Plan(Memory):
    """One call's objects, remembered.

    Attributes:
      pattern: the form of the call.
      spec: the static side of the call.
      program: a weak reference to what is compiled for the spec.
      values: by entry, the Variable, or where an array is read; None for arguments.
      is_simple: whether nothing but the watch has to be asked.
      arity: how many positional arguments there are; -1 if objects are inside of them.
      others_of: returns those that are no objects, in C.
      types: of those, where their types tell that a call has the form of the plan.
      reading: the operands of calls that do nothing but read, where that is known.
      donating: the operands of the program that donates, where it was prepared.
    """

    __slots__ = (
        "_objects",
        "_operands",
        "_roots",
        "arity",
        "donating",
        "is_simple",
        "others_of",
        "pattern",
        "program",
        "reading",
        "spec",
        "types",
        "values",
    )

    def __init__(
        self,
        pattern: Pattern,
        given: Sequence[Any],
        spec: Spec,
        flattener: Flattener,
        on_void: Callable[[Plan], None],
    ):
        self.pattern = pattern
        self.spec = spec
        self.program: Any = None
        # The plan is kept by the first object itself, so only the others need to be recognized.
        forget = functools.partial(_forget, weakref.ref(self))
        self._roots = [(i, weakref.ref(given[i], forget)) for i in pattern.roots[1:]]
        self._objects: list[Any] = [
            weakref.ref(obj) if isinstance(obj, Pytree) else obj for obj in flattener.table.objects
        ]
        self._operands: dict[object, Operands] = {}
        self.is_simple = not self._roots
        void = functools.partial(_void, weakref.ref(self), on_void)
        super().__init__(flattener, spec.record, void, threading.get_ident())
        for obj in flattener.table.objects:
            if isinstance(obj, Variable) and obj._keeper is not None:
                obj._keeper.touch()
        slots = slots_of(flattener)
        self.values = [
            None if group == ARRAYS else slots.get(i, entry.value)
            for i, (entry, group) in enumerate(zip(flattener.entries, spec.grouping, strict=True))
        ]
        self.arity = pattern.arity if pattern.is_flat else -1
        self.others_of = getter(pattern.others)
        self.types: tuple[type, ...] | None = None
        self.reading: Operands | None = None
        self.donating: Operands | None = None

    # -- validity
    def depend_on(self, snapshot: Snapshot | None) -> None:
        super().depend_on(snapshot)
        self.is_simple = self.is_simple and not self.snapshots

    def fits(self, given: Sequence[Any]) -> bool:
        """Returns whether the plan is one of these arguments or leaves, and still valid."""
        for position, ref in self._roots:
            if ref() is not given[position]:
                return False
        return self.holds()

    def accepts(self, rest: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Returns whether what JAX is given besides has the form that the plan is for."""
        if jtu.tree_structure((rest, named)) != self.pattern.rest:
            return False
        if all(x is None or jtu.all_leaves((x,)) for x in rest):
            self.types = tuple(map(type, rest))  # no need to look closer next time
        return True

    # -- arrays
    def operands(self, program: Program) -> Operands:
        """Returns how to gather the arrays of a program."""
        found = self._operands.get(program.token)
        if found is None:
            found = self._operands[program.token] = Operands(program, self.values)
        return found

    def expose(self) -> None:
        """Notes that the arrays of all Variables are handed out."""
        expose(v for v in self.values if isinstance(v, Variable) and not is_part(v))

    def call(self, rest: Any) -> Call:
        """Returns the call as if its objects had been walked again.

        Args:
          rest: what JAX was given besides their arrays.
        """
        objects = [obj() if isinstance(obj, weakref.ref) else obj for obj in self._objects]
        remaining = iter(jtu.tree_leaves(rest))
        arrays = [
            next(remaining) if value is None else value.holder[value.key]
            for value in self.values
            if not isinstance(value, Variable)
        ]
        return Call(self.spec, [], objects, arrays, [])

    def written(self, rest: Any, written: Sequence[Written]) -> list[Any]:
        """Returns the Variables that a call has written."""
        objects = self.call(rest).objects
        return [objects[w.index] for w in written]


def _void(plan: weakref.ref[Plan], on_void: Callable[[Plan], None]) -> None:
    """Is told when one of the objects of a plan changes."""
    found = plan()
    if found is not None:
        on_void(found)


def _forget(
    plan: weakref.ref[Plan], _: Any, is_finalizing: Callable[[], bool] = sys.is_finalizing
) -> None:
    """Is told when one of the objects of a plan is gone."""
    found = plan()
    if found is not None and not is_finalizing():  # at the end, modules are empty already
        found.watch.void()


def make_plan(
    lift: Lift,
    leaves: Sequence[Any],
    given: Sequence[Any],
    pattern: Pattern,
    on_void: Callable[[Plan], None],
) -> Plan:
    """Walks the objects among the arguments and remembers what is found.

    Args:
      lift: the function.
      leaves: objects and arrays.
      given: the arguments or leaves, what the pattern's positions count.
      pattern: their form.
      on_void: called with the plan when it is no longer valid.
    """
    args, kwargs = jtu.tree_unflatten(pattern.treedef, leaves)
    paths = [path for path, _ in leaf_paths(lift.f, args, kwargs, is_root)]
    while True:
        record, grouping, flattener = _walk(lift, leaves, pattern, paths)
        check_apart((entry.path, entry.value) for entry in flattener.entries)
        spots, entries = flattener.table.spots, flattener.entries
        if lift.in_keys != [None]:  # in the same order, with their prefixes
            call = lift.enter(args, kwargs)
            spots, entries = call.spec.spots, call.entries
        plan = Plan(pattern, given, Spec(record, grouping, spots, entries), flattener, on_void)
        # What another thread changes after the walk, and before the plan watches, is not reported.
        if threading.active_count() == 1:
            return plan
        again, _, walked = _walk(lift, leaves, pattern, paths)
        objects, others = flattener.table.objects, walked.table.objects
        if again == record and len(objects) == len(others) and all(map(_is, objects, others)):
            return plan


def _is(a: Any, b: Any) -> bool:
    return a is b


def _walk(
    lift: Lift, leaves: Sequence[Any], pattern: Pattern, paths: list[Any]
) -> tuple[ValueDef, tuple[int, ...], Flattener]:
    flattener = Flattener(share=lift.mode.share, arguments=True)
    records, grouping = [], []
    for leaf, path in zip(leaves, paths, strict=True):
        before = len(flattener.entries)
        records.append(flattener.flatten(leaf, path))
        grouping += [KEPT if is_root(leaf) else ARRAYS] * (len(flattener.entries) - before)
    return ValueDef(pattern.treedef, tuple(paths), tuple(records)), tuple(grouping), flattener


def find_plan(plans: Plans, owner: object, given: Sequence[Any], pattern: Pattern) -> Plan | None:
    """Returns the plan of a function that fits a call, and puts it before the others."""
    mine = plans.get(owner, {})
    thread = threading.get_ident()
    for plan in mine.get(thread, ()):
        is_known = plan.pattern == pattern and plan.program() is not None
        if is_known and plan.watch.valid and plan.fits(given):
            others = [other for other in mine[thread] if other is not plan and other.watch.valid]
            mine[thread] = [plan, *others]
            return plan
    return None


def iter_plans(plans: Plans) -> Iterator[Plan]:
    """Yields all plans; some may be forgotten meanwhile."""
    for by_thread in list(plans.values()):
        for found in list(by_thread.values()):
            yield from found


def remember(root: Root | None, plans: Plans, owner: object, plan: Plan) -> None:
    """Keeps a plan of a function; forgets what is void, the oldest, and what nobody asks for.

    Args:
      root: the object that keeps the plans, if any.
      plans: those that it keeps.
      owner: whom the plan is for.
      plan: the new one.
    """
    if root is not None and plans is NO_PLANS:
        with _first:  # of several threads
            if root._root_plans is NO_PLANS:
                object.__setattr__(root, "_root_plans", {})
        plans = root._root_plans
    for old in iter_plans(plans):  # a part that was removed unseen stays alive in a void plan
        old.holds()
    thread = threading.get_ident()
    mine = plans.setdefault(owner, {})
    mine[thread] = [plan, *(old for old in mine.get(thread, ()) if old.watch.valid)][:_MOST]
    if len(mine) > _MOST_THREADS:
        alive = {thread, *(other.ident for other in threading.enumerate())}
        for other in set(mine) - alive:
            mine.pop(other, None)
    for other, by_thread in list(plans.items()):  # another thread may add to it
        found = [plan for plans in list(by_thread.values()) for plan in plans]
        if all(plan.program() is None for plan in found):
            plans.pop(other, None)


def drop(plans: Plans, owner: object, plan: Plan) -> None:
    """Forgets a plan, and so the objects that it knows."""
    by_thread = plans.get(owner)
    if by_thread is None:
        return
    for thread, found in list(by_thread.items()):
        if any(other is plan for other in found):
            by_thread[thread] = [other for other in found if other is not plan]
            with contextlib.suppress(KeyError):
                if not by_thread[thread]:
                    del by_thread[thread]
