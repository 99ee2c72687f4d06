"""Plans: what is remembered of one call's objects, so that the next call does not walk them.

A *plan* knows the Variables of a call in order, and the program to run on their arrays. It is kept
by the first object among the arguments (so that it dies with it), refers to all objects weakly,
and is valid until their structure changes: objects report that themselves, and then the plan is
forgotten. What cannot report is compared with a *snapshot* on each call. *Operands* say how to
gather the arrays of one program.
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
from weft._graph.content import Slot, slots_of
from weft._graph.records import ValueDef
from weft._graph.snapshot import Snapshot, observe
from weft._graph.walk import Flattener
from weft._lift.jit.lease import Lease, settle
from weft._lift.jit.pattern import Pattern, getter, is_root
from weft._lift.jit.program import ARRAYS, KEPT, Program
from weft._lift.jit.spec import Call, Spec
from weft._lift.lift import Lift
from weft._object.pytree import Pytree
from weft._variable.bulk import expose, store_raws
from weft._variable.keeper import is_part
from weft._variable.part import check_apart
from weft._variable.reads import readers, register
from weft._variable.storage import get_keeper, get_slot
from weft._variable.values import is_leaf
from weft._variable.variable import Variable
from weft._variable.watch import Watch

_MOST = 16
_MOST_THREADS = 16
_first = threading.Lock()

Plans = dict[object, dict[int, list["Plan"]]]
"""The plans that an object keeps, by whom they are for and by thread."""


class Operands:
    """How to gather the arrays of a program from a plan's objects.

    Attributes:
      donated: the Variables whose arrays are donated.
      kept: the other Variables with a single array, in order.
      others: the rest, by position among all that are kept: arrays, Variables with a pytree, parts.
      is_reading: the program's.
      lease: the lease of the donated Variables.
      targets: by outcome, the Variables to write besides; None where one is a part.
      jitted: a weak reference to the program's function.
      has_effects, interrupts, outcomes: the program's.
      arrays: those of the Variables in `kept`, as long as none is written; None if not read yet.
      array_type: the type of an array that came out alone, None if none did.
    """

    __slots__ = (
        "__weakref__",
        "array_type",
        "arrays",
        "donated",
        "has_effects",
        "interrupts",
        "is_reading",
        "jitted",
        "kept",
        "lease",
        "others",
        "outcomes",
        "targets",
    )

    def __init__(self, program: Program, values: Sequence[Any]):
        self.outcomes = program.outcomes
        self.jitted: Any = weakref.ref(program.jitted)
        self.interrupts = program.interrupts
        self.has_effects = program.has_effects
        self.arrays: list[Any] | None = None
        self.array_type: type | None = None
        self.donated: list[Variable] = [values[i] for i in program.donated]
        paths = [program.spec.entries[i].path for i in program.donated]
        pairs = zip(self.donated, map(program.options.is_given, paths), strict=True)
        self.lease = Lease(self.donated, frozenset(id(v) for v, is_given in pairs if is_given))
        self.targets: dict[int, list[Variable] | None] = {}
        self.kept: list[Variable] = []
        self.others: list[tuple[int, Slot | Variable]] = []
        position = 0
        for i in sorted(set(range(len(values))).difference(program.donated)):
            value = values[i]
            if isinstance(value, Variable) and not is_part(value) and is_leaf(value._slot):
                self.kept.append(value)
                position += 1
            elif value is not None:
                self.others.append((position, value))
                position += _treedef(value).num_leaves if isinstance(value, Variable) else 1
        self.is_reading = program.is_reading

    def read(self) -> list[Any]:
        """Reads the arrays in `kept`, and keeps them as long as nothing is written."""
        settle()
        reference = register(self)
        arrays = self.arrays = [variable._slot for variable in self.kept]
        if reference not in readers:  # another thread wrote meanwhile
            self.arrays = None
        return arrays

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():  # at the end, modules are empty already
            self.lease.end()


class Plan:
    """One call's objects, remembered.

    Attributes:
      pattern: the form of the call.
      spec: the static side of the call.
      structure: a weak reference to what is compiled for the spec.
      values: by entry, the Variable, or where an array is read; None for arguments.
      watch: says whether an object changed.
      is_simple: whether nothing but the watch has to be asked.
      arity: how many positional arguments there are; -1 if objects are inside of them.
      others_of: returns those that are no objects, in C.
      types: of those, where their types tell that a call has the form of the plan.
      reading: the operands of calls that do nothing but read, where that is known.
      donating: the operands of the program that donates, where it was prepared.
    """

    __slots__ = (
        "__weakref__",
        "_objects",
        "_operands",
        "_roots",
        "_snapshots",
        "arity",
        "donating",
        "is_simple",
        "others_of",
        "pattern",
        "reading",
        "spec",
        "structure",
        "types",
        "values",
        "watch",
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
        self.structure: Any = None
        void = functools.partial(_void, weakref.ref(self), on_void)
        self.watch = Watch(void, thread=threading.get_ident())
        # The plan is kept by the first object itself, so only the others need to be recognized.
        forget = functools.partial(_forget, weakref.ref(self))
        self._roots = [(i, weakref.ref(given[i], forget)) for i in pattern.roots[1:]]
        self._objects: list[Any] = [
            weakref.ref(obj) if isinstance(obj, Pytree) else obj for obj in flattener.table.objects
        ]
        self.values = _values(spec, flattener)
        self._operands: dict[object, Operands] = {}
        self._snapshots: list[Snapshot] = []
        self.is_simple = not self._roots
        self.depend_on(self._observe(flattener))
        self.arity = pattern.arity if pattern.is_flat else -1
        self.others_of = getter(pattern.others)
        self.types: tuple[type, ...] | None = None
        self.reading: Operands | None = None
        self.donating: Operands | None = None

    def __del__(self) -> None:
        self.watch.valid = False  # so that the objects forget it

    # -- validity
    def _observe(self, flattener: Flattener) -> Snapshot | None:
        """Watches what reports its changes, and takes a snapshot of the rest."""
        snapshot = Snapshot()
        observe(flattener, self.spec.record, self.watch, snapshot)
        for obj in flattener.table.objects:
            if isinstance(obj, Variable) and obj._keeper is not None:
                obj._keeper.touch()
        return snapshot.close()

    def depend_on(self, snapshot: Snapshot | None) -> None:
        """Makes the plan valid only as long as what a snapshot shows is as it was."""
        if snapshot is not None and snapshot not in self._snapshots:
            self._snapshots.append(snapshot)
            self.is_simple = False

    def fits(self, given: Sequence[Any]) -> bool:
        """Returns whether the plan is one of these arguments or leaves, and still valid."""
        for position, ref in self._roots:
            if ref() is not given[position]:
                return False
        return self.holds()

    def holds(self) -> bool:
        """Returns whether the objects are as they were."""
        for snapshot in self._snapshots:
            if not snapshot.holds():
                self.watch.void()
        return self.watch.valid

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


def _values(spec: Spec, flattener: Flattener) -> list[Any]:
    """Returns the Variable at each entry, or where an array is read, None for arguments."""
    slots = slots_of(flattener)
    return [
        None if group == ARRAYS else slots.get(i, entry.value)
        for i, (entry, group) in enumerate(zip(flattener.entries, spec.layout, strict=True))
    ]


def _treedef(variable: Variable) -> Any:
    return jtu.tree_structure(get_slot(variable))


def gather(operands: Operands) -> list[Any]:
    """Reads the arrays that are not donated."""
    arrays = [variable._slot for variable in operands.kept]
    if operands.others:
        for position, value in operands.others:
            if isinstance(value, Slot):
                arrays.insert(position, value.holder[value.key])
            else:
                raw = value._raw if is_part(value) else get_slot(value)
                arrays[position:position] = jtu.tree_leaves(raw)
    return arrays


def store_others(plan: Plan, operands: Operands, number: int, rest: Any, new: list[Any]) -> bool:
    """Stores the new values of written Variables that are not donated, the first of some arrays.

    Args:
      plan: of the call.
      operands: the plan's for the program that ran.
      number: that of the outcome.
      rest: what JAX was given besides the objects' arrays.
      new: what came out.

    Returns:
      False where there is more to it: where one of them is a part.
    """
    if number not in operands.targets:
        objects = plan.call(rest).objects
        found = [objects[w.index] for w in operands.outcomes[number].exit.written]
        operands.targets[number] = None if any(map(is_part, found)) else found
    targets = operands.targets[number]
    if targets is None:
        return False
    if any(map(get_keeper, targets)):
        expose(targets)
    store_raws(targets, new)
    return True


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
        record, layout, flattener = _walk(lift, leaves, pattern, paths)
        check_apart((entry.path, entry.value) for entry in flattener.entries)
        spots, entries = flattener.table.spots, flattener.entries
        if lift.in_keys != [None]:  # in the same order, with their prefixes
            call = lift.enter(args, kwargs)
            spots, entries = call.spec.spots, call.entries
        plan = Plan(pattern, given, Spec(record, layout, spots, entries), flattener, on_void)
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
    records, layout = [], []
    for leaf, path in zip(leaves, paths, strict=True):
        before = len(flattener.entries)
        records.append(flattener.flatten(leaf, path))
        layout += [KEPT if is_root(leaf) else ARRAYS] * (len(flattener.entries) - before)
    return ValueDef(pattern.treedef, tuple(paths), tuple(records)), tuple(layout), flattener


def find_plan(plans: Plans, owner: object, given: Sequence[Any], pattern: Pattern) -> Plan | None:
    """Returns the plan of a function that fits a call, and puts it before the others."""
    mine = plans.get(owner, {})
    thread = threading.get_ident()
    for plan in mine.get(thread, ()):
        is_known = plan.pattern == pattern and plan.structure() is not None
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
        if all(plan.structure() is None for plan in found):
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
