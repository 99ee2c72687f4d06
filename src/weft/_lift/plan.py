"""Plans: what is remembered of one call's objects, so that the next call does not walk them.

A *plan* knows the Variables of a call in order, and the program to run on their arrays. It is kept
by the first object among the arguments (so that it dies with it), refers to all objects weakly,
and is valid until their structure changes: objects report that themselves. What cannot report is
compared with a *snapshot* on each call. *Operands* say how to gather the arrays of one program.
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._graph.content import Slot, slots_of
from weft._graph.records import ValueDef
from weft._graph.snapshot import Snapshot, observe
from weft._graph.walk import Flattener
from weft._lift.lease import Lease, settle
from weft._lift.lift import Call, Lift, Spec
from weft._lift.program import ARRAYS, KEPT, Program
from weft._module.pytree import Pytree
from weft._reads import readers, register
from weft._types import NO_PLANS, Root
from weft._variable import Variable, get_lease, get_slot, is_leaf
from weft._variables import store_raws
from weft._watch import Watch

_MOST = 16

Plans = dict[object, list["Plan"]]
"""The plans that an object keeps, by whom they are for."""

is_root = Root.__instancecheck__
"""Returns whether an argument is an object or Variable rather than an array; runs in C."""


class Pattern(NamedTuple):
    """The form of a call's arguments.

    Attributes:
      treedef: the structure around objects and arrays.
      roots: where the objects are: positions among the positional arguments if all of them are
        such arguments, else among the leaves.
      is_flat: whether it is the former; then JAX is given the other arguments as they are.
      others: positions of the other positional arguments, or of the arrays among the leaves.
      arity: how many positional arguments there are.
      rest: the structure of what JAX is given.
    """

    treedef: Any
    roots: tuple[int, ...]
    is_flat: bool
    others: tuple[int, ...]
    arity: int
    rest: Any

    def rest_of(self, args: Sequence[Any], kwargs: dict[str, Any], leaves: Sequence[Any]) -> Any:
        """Returns what JAX is given besides the arrays that objects hold."""
        if self.is_flat:
            return _getter(self.others)(tuple(args)), kwargs
        return _getter(self.others)(tuple(leaves)), {}


def pattern_of(
    args: tuple[Any, ...], kwargs: dict[str, Any], leaves: Sequence[Any], treedef: Any
) -> Pattern:
    """Returns the form of arguments that were taken apart."""
    number = sum(map(is_root, leaves))
    roots = tuple(i for i, x in enumerate(args) if is_root(x))
    is_flat = len(roots) == number
    if not is_flat:
        roots = tuple(i for i, leaf in enumerate(leaves) if is_root(leaf))
    others = set(range(len(args) if is_flat else len(leaves))).difference(roots)
    pattern = Pattern(treedef, roots, is_flat, tuple(sorted(others)), len(args), None)
    rest = jtu.tree_structure(pattern.rest_of(args, kwargs, leaves))
    return pattern._replace(rest=rest)


class Operands:
    """How to gather the arrays of a program from a plan's objects.

    Attributes:
      program: a weak reference to the program.
      donated: the Variables whose arrays are donated.
      kept: the other Variables with a single array, in order.
      others: the rest, by position among all that are kept: arrays, and Variables with a pytree.
      is_reading: the program's.
      lease: the lease of the donated Variables.
      targets: by outcome, the Variables to write besides.
      jitted: a weak reference to the program's function.
      has_effects, interrupts: the program's.
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
        "program",
        "targets",
    )

    def __init__(self, program: Program, values: Sequence[Any]):
        self.program: Any = weakref.ref(program)
        self.jitted: Any = weakref.ref(program.jitted)
        self.interrupts = program.interrupts
        self.has_effects = program.has_effects
        self.arrays: list[Any] | None = None
        self.array_type: type | None = None
        self.donated: list[Variable] = [values[i] for i in program.donated]
        self.lease = Lease(self.donated)
        self.targets: dict[int, list[Variable]] = {}
        self.kept: list[Variable] = []
        self.others: list[tuple[int, Slot | Variable]] = []
        position = 0
        for i in sorted(set(range(len(values))).difference(program.donated)):
            value = values[i]
            if isinstance(value, Variable) and is_leaf(value._slot):
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
            self.lease.settle()


class Plan:
    """One call's objects, remembered.

    Attributes:
      pattern: the form of the call.
      spec: the static side of the call.
      structure: a weak reference to what is compiled for the spec.
      values: by entry, the Variable, or where an array is read; None for arguments.
      watch: says whether an object changed.
      thread: whose plan it is.
      is_simple: whether nothing but the watch has to be asked.
      arity: how many positional arguments there are; -1 if objects are inside of them.
      others_of: returns those that are no objects, in C.
      reading: the operands of calls that do nothing but read, where that is known.
      donating: the operands of the program that donates, where it was prepared.
    """

    __slots__ = (
        "__weakref__",
        "_objects",
        "_operands",
        "_roots",
        "_snapshot",
        "arity",
        "donating",
        "is_simple",
        "others_of",
        "pattern",
        "reading",
        "spec",
        "structure",
        "thread",
        "values",
        "watch",
    )

    def __init__(self, pattern: Pattern, given: Sequence[Any], spec: Spec, flattener: Flattener):
        self.pattern = pattern
        self.spec = spec
        self.structure: Any = None
        self.thread = threading.get_ident()
        self.watch = Watch(thread=self.thread)
        # The plan is kept by the first object itself, so only the others need to be recognized.
        forget = functools.partial(_forget, weakref.ref(self))
        self._roots = [(i, weakref.ref(given[i], forget)) for i in pattern.roots[1:]]
        self._objects: list[Any] = [
            weakref.ref(obj) if isinstance(obj, Pytree) else obj for obj in flattener.table.objects
        ]
        self.values = _values(spec, flattener)
        self._operands: dict[object, Operands] = {}
        self._snapshot = self._observe(flattener)
        self.is_simple = not self._roots and self._snapshot is None
        self.arity = pattern.arity if pattern.is_flat else -1
        self.others_of = _getter(pattern.others)
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
            if isinstance(obj, Variable) and obj._lease is not None:
                obj._lease.touch()
        return snapshot.close()

    def fits(self, given: Sequence[Any]) -> bool:
        """Returns whether the plan is one of these arguments or leaves, and still valid."""
        for position, ref in self._roots:
            if ref() is not given[position]:
                return False
        if self._snapshot is not None and not self._snapshot.holds():
            self.watch.valid = False
        return self.watch.valid

    def clear(self) -> None:
        """Forgets the objects, so that what is left of the plan keeps nothing alive."""
        self.watch.valid = False
        self._objects, self.values, self._snapshot = [], [], None
        self.reading = self.donating = None
        self._operands.clear()

    # -- arrays
    def operands(self, program: Program) -> Operands:
        """Returns how to gather the arrays of a program."""
        found = self._operands.get(program.token)
        if found is None:
            found = self._operands[program.token] = Operands(program, self.values)
        return found

    def expose(self) -> None:
        """Notes that the arrays of all Variables are handed out."""
        for value in self.values:
            if isinstance(value, Variable) and value._lease is not None:
                value._lease.expose(value)

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


def _forget(plan: weakref.ref, _: Any) -> None:
    """Is told when one of the objects of a plan is gone."""
    found = plan()
    if found is not None:
        found.clear()


def _getter(positions: tuple[int, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Returns what returns the elements of a tuple at some positions, in order, as a tuple."""
    first, number = min(positions, default=0), len(positions)
    if positions == tuple(range(first, first + number)):
        return operator.itemgetter(slice(first, first + number))
    return operator.itemgetter(*positions)


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
            if type(value) is Slot:
                arrays.insert(position, value.holder[value.key])
            else:
                arrays[position:position] = jtu.tree_leaves(get_slot(value))
    return arrays


def store_others(
    program: Program, plan: Plan, operands: Operands, number: int, rest: Any, new: list[Any]
) -> None:
    """Stores the new values of written Variables that are not donated, the first of some arrays.

    Args:
      program: which ran.
      plan: of the call.
      operands: the plan's for this program.
      number: that of the outcome.
      rest: what JAX was given besides the objects' arrays.
      new: what came out.
    """
    targets = operands.targets.get(number)
    if targets is None:
        objects = plan.call(rest).objects
        written = program.outcomes[number].exit.written
        targets = operands.targets[number] = [objects[w.index] for w in written]
    if any(map(get_lease, targets)):
        for target in targets:
            if target._lease is not None:
                target._lease.expose(target)
    store_raws(targets, new)


def make_plan(
    lift: Lift, leaves: Sequence[Any], given: Sequence[Any], pattern: Pattern, paths: list[Any]
) -> Plan:
    """Walks the objects among the arguments and remembers what is found.

    Args:
      lift: the function.
      leaves: objects and arrays.
      given: the arguments or leaves, what the pattern's positions count.
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
    return Plan(pattern, given, spec, flattener)


def find_plan(plans: Plans, owner: object, given: Sequence[Any], pattern: Pattern) -> Plan | None:
    """Returns the plan of a function that fits a call, and puts it before the others."""
    thread = threading.get_ident()
    found = plans.get(owner, [])
    for plan in found:
        if plan.thread == thread and plan.pattern == pattern and plan.fits(given):
            if plan is not found[0]:
                plans[owner] = [plan, *(other for other in found if other is not plan)]
            return plan
    return None


def remember(root: Root, plans: Plans, owner: object, plan: Plan) -> Plans:
    """Keeps a plan of a function; forgets void ones, the oldest, and those of dead functions."""
    if plans is NO_PLANS:
        plans = {}
        object.__setattr__(root, "_root_plans", plans)
    valid = [old for old in plans.get(owner, ()) if old.watch.valid]
    plans[owner] = [plan, *valid[: _MOST - 1]]
    for other, found in list(plans.items()):  # another thread may add to it
        if found[0].structure() is None:
            plans.pop(other, None)
    return plans
