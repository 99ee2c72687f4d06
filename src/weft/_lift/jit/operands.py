"""Operands: how to gather the arrays of a program from the objects of a plan, and where they go."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax.tree_util as jtu

from weft._graph.memory import Slot
from weft._lift.jit.lease import Lease, settle
from weft._lift.jit.program import Program
from weft._variable.bulk import expose, store_raws
from weft._variable.keeper import is_part
from weft._variable.reads import readers, register
from weft._variable.storage import get_keeper, get_slot
from weft._variable.values import is_leaf
from weft._variable.variable import Variable


class Operands:
    """How to gather the arrays of a program from a plan's objects.

    Attributes:
      donated: the Variables whose arrays are donated.
      kept: the other Variables with a single array, in order.
      others: the rest, by position among all that are kept: arrays, Variables with a pytree, parts.
      lease: the lease of the donated Variables.
      targets: by outcome, the Variables to write besides; None where one is a part.
      program: a weak reference to the program.
      arrays: those of the Variables in `kept`, as long as none is written; None if not read yet.
      array_type: the type of an array that came out alone, None if none did.
    """

    __slots__ = (
        "__weakref__",
        "array_type",
        "arrays",
        "donated",
        "kept",
        "lease",
        "others",
        "program",
        "targets",
    )

    def __init__(self, program: Program, values: Sequence[Any]):
        self.program = weakref.ref(program)
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


def store_others(
    operands: Operands, number: int, find: Callable[[], list[Any]], new: list[Any]
) -> bool:
    """Stores the new values of written Variables that are not donated, the first of some arrays.

    Args:
      operands: those of the call.
      number: that of the outcome.
      find: returns these Variables.
      new: what came out.

    Returns:
      False where there is more to it: where one of them is a part.
    """
    if number not in operands.targets:
        found = find()
        operands.targets[number] = None if any(map(is_part, found)) else found
    targets = operands.targets[number]
    if targets is None:
        return False
    if any(map(get_keeper, targets)):
        expose(targets)
    store_raws(targets, new)
    return True
