"""Plans: what is remembered of one call's objects, so that the next call does not walk them.

A *plan* knows the Variables of a call in order, and the program to run on their arrays. It is kept
by the first object among the arguments (so that it dies with it), refers to all objects weakly,
and is valid until their structure changes: objects report that themselves. What cannot report
(plain lists and dicts, foreign pytrees, configs) is *checked* on each call: its elements are
compared by identity with those that were seen.
"""

from __future__ import annotations

import collections
import itertools
import operator
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._graph.records import ValueDef, iter_records
from weft._graph.state import State, watch_state
from weft._graph.walk import Entry, Flattener
from weft._lift.lease import Lease
from weft._lift.lift import Call, Lift, Spec
from weft._lift.program import ARRAYS, KEPT, Program
from weft._module import kinds
from weft._module.pytree import Pytree, attributes, watch_object
from weft._module.pytree import set_plans as set_object_plans
from weft._static import Static, key_of
from weft._variable import Variable, get_slot, is_leaf, set_slot, watch_variable
from weft._variable import set_plans as set_variable_plans
from weft._watch import Watch

ROOTS = (Pytree, Variable)
_MOST = 8


def is_root(x: Any) -> bool:
    """Returns whether an argument is an object rather than an array."""
    return isinstance(x, ROOTS)


class Pattern(NamedTuple):
    """The form of a call's arguments.

    Attributes:
      treedef: the structure around objects and arrays.
      roots: positions of the objects among the leaves.
      arrays: positions of the arrays.
    """

    treedef: Any
    roots: tuple[int, ...]
    arrays: tuple[int, ...]


def pattern_of(leaves: Sequence[Any], treedef: Any) -> Pattern:
    """Returns the form of arguments that were taken apart."""
    roots = tuple(i for i, leaf in enumerate(leaves) if is_root(leaf))
    arrays = tuple(i for i, leaf in enumerate(leaves) if not is_root(leaf))
    return Pattern(treedef, roots, arrays)


class ArraySlot(NamedTuple):
    """An array that is an attribute: where it is read."""

    attributes: dict[str, Any]
    name: str


def _locate(entry: Entry, flattener: Flattener) -> Any:
    """Returns where an array is read: attributes may get another array, nothing else may."""
    for obj, spot in zip(flattener.table.objects, flattener.table.spots, strict=True):
        if spot.path == entry.path[:-1] and isinstance(obj, Pytree):
            if attributes(obj).get(entry.path[-1]) is entry.value:
                return ArraySlot(attributes(obj), entry.path[-1])
    return entry.value


class Operands(NamedTuple):
    """How to gather the arrays of a program from a plan's objects.

    Attributes:
      donated: the Variables whose arrays are donated.
      kept: the other Variables and arrays, in order.
      is_plain: whether all kept are Variables with a single array.
      lease: the lease of the donated Variables.
      targets: by outcome, the Variables to write besides.
    """

    donated: list[Variable]
    kept: list[Any]
    is_plain: bool
    lease: Lease
    targets: dict[int, list[Variable]]


class Plan:
    """One call's objects, remembered."""

    __slots__ = (
        "__weakref__",
        "_checks",
        "_objects",
        "_operands",
        "_others",
        "owner",
        "spec",
        "pattern",
        "structure",
        "thread",
        "values",
        "watch",
    )

    def __init__(
        self, owner: object, pattern: Pattern, leaves: list[Any], spec: Spec, flattener: Flattener
    ):
        self.owner = owner
        self.thread = threading.get_ident()
        self.pattern = pattern
        self.spec = spec
        self.structure: Any = None  # what the owner compiled for the spec
        self.watch = Watch()
        # The plan is kept by the first object itself, so only the others need to be recognized.
        first, *others = pattern.roots or (None,)
        self._others = [(i, weakref.ref(leaves[i], self._forget)) for i in others]
        self._objects: list[Any] = [
            weakref.ref(obj) if isinstance(obj, Pytree) else obj for obj in flattener.table.objects
        ]
        self.values: list[Any] = [
            entry.value if isinstance(entry.value, Variable) else _locate(entry, flattener)
            for entry in flattener.entries
        ]
        self._operands: dict[Program, Operands] = {}
        self._checks: list[Callable[[], bool]] = []
        self._observe(flattener)

    def _forget(self, _: Any) -> None:
        """Drops everything once one of the objects is gone."""
        self.watch.valid = False
        self._objects, self.values, self._checks = [], [], []
        self._operands.clear()

    # -- validity
    def _observe(self, flattener: Flattener) -> None:
        add = self._checks.append
        for obj in flattener.table.objects:
            if isinstance(obj, Variable):
                if obj._lease is not None:
                    obj._lease.touch()
                watch_variable(obj, self.watch)
                treedef = jtu.tree_structure(obj._slot)
                if not jtu.treedef_is_leaf(treedef):
                    add(_has_treedef(obj, treedef))
            elif isinstance(obj, Pytree):
                if not watch_object(obj, self.watch):
                    add(_same_items(attributes(obj)))
            elif isinstance(obj, dict):
                add(_same_items(obj))
            else:
                add(_same_elements(obj))
        for value in flattener.foreign:
            if isinstance(value, State):
                if not watch_state(value, self.watch):
                    add(_same_items(value._mapping))
            else:
                add(_same_parts(value))
        for _, record in iter_records(self.spec.record):
            if isinstance(record, Static) and may_change(record.value):
                add(_same_key(record))

    def fits(self, leaves: Sequence[Any]) -> bool:
        """Returns whether the plan is one of these objects, and still valid."""
        if not self.watch.valid:
            return False
        for position, ref in self._others:
            if ref() is not leaves[position]:
                return False
        return not self._checks or all([check() for check in self._checks])

    # -- arrays
    def operands(self, program: Program) -> Operands:
        """Returns how to gather the arrays of a program."""
        found = self._operands.get(program)
        if found is None:
            found = self._operands[program] = self._find_operands(program)
        return found

    def _find_operands(self, program: Program) -> Operands:
        chosen = frozenset(program.donated)
        kept = [
            value
            for i, (value, group) in enumerate(zip(self.values, self.spec.layout, strict=True))
            if group != ARRAYS and i not in chosen
        ]
        donated = [self.values[i] for i in program.donated]
        is_plain = all(isinstance(value, Variable) and is_leaf(value._slot) for value in kept)
        return Operands(donated, kept, is_plain, Lease(donated), {})

    def call(self, arguments: Sequence[Any]) -> Call:
        """Returns the call as if its objects had been walked again.

        Args:
          arguments: the arguments that are arrays.
        """
        objects = [obj() if isinstance(obj, weakref.ref) else obj for obj in self._objects]
        arguments = iter(arguments)
        arrays = [
            next(arguments) if group == ARRAYS else read(value)
            for value, group in zip(self.values, self.spec.layout, strict=True)
            if not isinstance(value, Variable)
        ]
        return Call(self.spec, [], objects, arrays, [])


def gather(operands: Operands) -> list[Any]:
    """Reads the arrays that are not donated."""
    if operands.is_plain:
        return [variable._slot for variable in operands.kept]
    arrays: list[Any] = []
    for value in operands.kept:
        if isinstance(value, Variable):
            arrays.extend(jtu.tree_leaves(get_slot(value)))
        else:
            arrays.append(read(value))
    return arrays


def read(value: Any) -> Any:
    """Reads an array that no Variable holds."""
    return value.attributes[value.name] if isinstance(value, ArraySlot) else value


_first = operator.itemgetter(0)


def run_and_store(program: Program, donated: list[Variable], kept: list[Any], arrays: list[Any]) -> Any:
    """Runs a donating program and stores what comes out, without a gap for an interrupt.

    All of it is one call from C: signals are handled before or after, never between.

    Returns:
      The further arrays that come out, and the list whose length is the outcome's number.
    """
    box: list[Any] = []
    operands = ([variable._slot for variable in donated], kept, arrays)
    run = map(box.append, itertools.starmap(program.jitted, (operands,)))
    store = map(set_slot, donated, itertools.chain.from_iterable(map(_first, box)))
    collections.deque(maxlen=0).extend(itertools.chain(run, store))
    return box[0][1:]


def make_plan(
    owner: object, lift: Lift, leaves: list[Any], pattern: Pattern, paths: list[Any]
) -> Plan:
    """Walks the objects among the arguments and remembers what is found.

    Args:
      owner: who makes the plan; it is used by nobody else.
      lift: the function.
      leaves: objects and arrays.
      pattern: their form.
      paths: the path of each leaf.
    """
    flattener = Flattener(share=lift.mode.share, arguments=True)
    records, layout = [], []
    for leaf, path in zip(leaves, paths, strict=True):
        before = len(flattener.entries)
        records.append(flattener.flatten(leaf, path))
        layout += [KEPT if is_root(leaf) else ARRAYS] * (len(flattener.entries) - before)
    record = ValueDef(pattern.treedef, tuple(paths), tuple(records))
    spec = Spec(record, tuple(layout), flattener.table.spots, flattener.entries)
    return Plan(owner, pattern, leaves, spec, flattener)


def plans_of(root: Any) -> list[Plan]:
    """Returns the list of plans that an object keeps."""
    if isinstance(root, Variable):
        if root._plans is None:
            set_variable_plans(root, [])
        return root._plans
    if root._pytree_plans is None:
        set_object_plans(root, [])
    return root._pytree_plans


def find_plan(
    plans: list[Plan], owner: object, leaves: Sequence[Any], pattern: Pattern
) -> Plan | None:
    """Returns the plan that fits a call; forgets plans that are void, and the oldest of many."""
    thread = threading.get_ident()
    for plan in plans:
        if plan.owner is owner and plan.thread == thread:
            is_same = plan.pattern is pattern or plan.pattern == pattern
            if is_same and plan.fits(leaves):
                return plan
    plans[:] = [plan for plan in plans if plan.watch.valid][-_MOST:]
    return None


# -- checks of what cannot report a change: each compares with what was seen
def _same(before: list[Any], now: Any) -> bool:
    return len(before) == len(now) and all(map(operator.is_, before, now))


def _same_elements(container: Any) -> Callable[[], bool]:
    before = list(container)
    return lambda: _same(before, container)


def _same_items(mapping: dict[Any, Any]) -> Callable[[], bool]:
    keys, values = list(mapping), list(mapping.values())
    inner = [_same_items(value) for value in values if type(value) is dict]

    def check() -> bool:
        same = _same(keys, mapping) and _same(values, mapping.values())
        return same and all(check() for check in inner)

    return check


def _same_parts(value: Any) -> Callable[[], bool]:
    _, before, treedef = kinds.split_foreign(value)

    def check() -> bool:
        _, now, now_treedef = kinds.split_foreign(value)
        return now_treedef == treedef and _same(list(before), now)

    return check


def _same_key(record: Static) -> Callable[[], bool]:
    return lambda: key_of(record.value) == record.key


def _has_treedef(variable: Variable, treedef: Any) -> Callable[[], bool]:
    return lambda: jtu.tree_structure(get_slot(variable)) == treedef


def may_change(value: Any) -> bool:
    """Returns whether a static value is compared by content that may change in place."""
    if isinstance(value, tuple):
        return any(map(may_change, value))
    try:
        hash(value)
    except TypeError:
        return True
    return False
