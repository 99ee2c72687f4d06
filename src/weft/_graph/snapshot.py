"""Snapshots: what cannot report that it changes, as it was when a plan was made.

Plain lists, dicts and sets, pytrees of other libraries, config objects and variables of closures
change without anybody being told. A snapshot keeps what was in them, and compares by identity on
each call, all of them at once and in C: keeping the elements alive is what makes identity safe, as
the address of a dead one would be used again. Code and default values of functions, and what is
frozen, are taken to stay as they are.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import operator
import types
from collections.abc import Callable, Iterable
from typing import Any

import jax.tree_util as jtu
import numpy as np

from weft._graph.closures import unsettled
from weft._graph.records import Record, iter_records
from weft._graph.state import State, watch_state
from weft._graph.walk import Flattener
from weft._module.node_types import node_type
from weft._module.pytree import Pytree, attributes, watch_object
from weft._static import ByIdentity, Static, key_of
from weft._variable import Variable, get_slot, is_leaf, watch_variable
from weft._watch import Watch

_values_of = dict.values
_flat = itertools.chain.from_iterable


class Snapshot:
    """What was seen in things that change silently."""

    __slots__ = (
        "_before",
        "_cells",
        "_checks",
        "_holders",
        "_lengths",
        "_mappings",
        "_seen",
        "_sequences",
    )

    def __init__(self) -> None:
        self._sequences: list[Any] = []  # lists and sets
        self._mappings: list[dict[Any, Any]] = []
        self._holders: list[Any] = []  # objects with attributes
        self._cells: list[types.CellType] = []
        self._checks: list[Callable[[], bool]] = []  # of what has no elements to compare
        self._seen: dict[int, Any] = {}  # alive, so that no address is used twice
        self._lengths: list[int] = []
        self._before: tuple[list[Any], ...] = ()

    # -- making one
    def add_container(self, value: Any) -> None:
        """Adds a mutable container, but nothing inside of it."""
        kind = type(value)
        if kind in (list, set, collections.deque):
            self._sequences.append(value)
        elif kind is dict:
            self._mappings.append(value)
        else:  # what it is made of is not for its own methods to say
            handler = node_type(kind)
            before, extra = handler.items(value), handler.extra(value)

            def check() -> bool:
                now = handler.items(value)
                same_values = len(now) == len(before) and all(
                    a is b for (_, a), (_, b) in zip(before, now, strict=True)
                )
                same_keys = same_values and [k for k, _ in before] == [k for k, _ in now]
                return same_keys and type(value) is kind and handler.extra(value) == extra

            self._checks.append(check)

    def add_levels(self, mapping: dict[Any, Any]) -> None:
        """Adds a nested dict, and the dicts below it."""
        self._mappings.append(mapping)
        for child in mapping.values():
            if type(child) is dict:
                self.add_levels(child)

    def add_foreign(self, value: Any) -> None:
        """Adds a pytree that is registered with JAX: its structure and what is directly inside."""
        is_inside = lambda x: x is not value  # noqa: E731
        before, treedef = jtu.tree_flatten(value, is_inside)

        def check() -> bool:
            now, found = jtu.tree_flatten(value, is_inside)
            return found == treedef and all(map(operator.is_, before, now))

        self._checks.append(check)

    def add_check(self, check: Callable[[], bool]) -> None:
        """Adds a function that says whether something is as it was."""
        self._checks.append(check)

    def add_static(self, value: Any) -> None:
        """Adds all in a static value that may change in place and decides about its key."""
        if type(value) in _FIXED or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        rule = _RULES.get(type(value), Snapshot._add_object)
        rule(self, value)

    def _add_parts(self, value: Any) -> None:
        for part in value:
            self.add_static(part)

    def _add_sequence(self, value: Any) -> None:
        self._sequences.append(value)
        self._add_parts(value)

    def _add_mapping(self, value: Any) -> None:
        self._mappings.append(value)
        self._add_parts(value)
        self._add_parts(value.values())

    def _add_function(self, value: types.FunctionType) -> None:
        changing = set(map(id, unsettled(value)))
        for cell in value.__closure__ or ():
            if id(cell) not in self._seen:
                self._seen[id(cell)] = cell
                try:
                    self.add_static(cell.cell_contents)
                except ValueError:  # still empty
                    self._add_key(value)
                else:
                    if id(cell) in changing:
                        self._cells.append(cell)
        self._add_parts(value.__defaults__ or ())
        self._add_parts((value.__kwdefaults__ or {}).values())

    def _add_method(self, value: types.MethodType) -> None:
        self._add_parts((value.__func__, value.__self__))

    def _add_partial(self, value: functools.partial) -> None:
        self._add_parts((value.func, value.args, value.keywords))

    def _add_object(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, np.generic) or type(key_of(value)) is ByIdentity:
            return
        parameters = vars(kind).get("__dataclass_params__")
        if parameters is not None and parameters.eq:
            if parameters.frozen:
                self._add_parts(getattr(value, f.name, None) for f in dataclasses.fields(value))
            else:
                self._add_attributes(value)
            return
        if isinstance(value, tuple):
            self._add_parts(value)
            return
        try:
            hash(value)
        except TypeError:
            self._add_attributes(value)

    def _add_attributes(self, value: Any) -> None:
        own = getattr(value, "__dict__", None)
        if type(own) is not dict or isinstance(value, (list, dict, set)):
            self._add_key(value)
            return
        self._holders.append(value)  # the dict may be replaced by another
        self._add_mapping(own)

    def _add_key(self, value: Any) -> None:
        key = key_of(value)
        self._checks.append(lambda: key_of(value) == key)

    def close(self) -> Snapshot | None:
        """Takes the snapshot; returns None if there is nothing that could change."""
        self._seen = {}
        self._lengths = [*map(len, self._sequences), *map(len, self._mappings)]
        self._before = tuple(map(list, self._read()))
        return self if self._lengths or self._cells or self._checks else None

    # -- comparing
    def _read(self) -> tuple[Iterable[Any], ...]:
        mappings = self._mappings
        return (
            _flat(self._sequences),
            _flat(mappings),
            _flat(map(_values_of, mappings)),
            [holder.__dict__ for holder in self._holders],
            [cell.cell_contents for cell in self._cells],
        )

    def holds(self) -> bool:
        """Returns whether everything is as it was."""
        try:
            if self._lengths:
                if self._lengths != [*map(len, self._sequences), *map(len, self._mappings)]:
                    return False
                if not all(map(operator.is_, _flat(self._before), _flat(self._read()))):
                    return False
            elif self._cells:  # the functions of an optimizer, as a rule
                contents = [cell.cell_contents for cell in self._cells]
                if not all(map(operator.is_, self._before[-1], contents)):
                    return False
        except (AttributeError, ValueError):  # an attribute dict or the content of a cell is gone
            return False
        return not self._checks or all(check() for check in self._checks)


_FIXED = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type, type(...), types.BuiltinFunctionType}
)
_RULES: dict[type, Callable[[Snapshot, Any], None]] = {
    tuple: Snapshot._add_parts,
    frozenset: Snapshot._add_parts,
    list: Snapshot._add_sequence,
    set: Snapshot._add_sequence,
    dict: Snapshot._add_mapping,
    collections.OrderedDict: Snapshot._add_mapping,
    np.ndarray: Snapshot._add_key,
    functools.partial: Snapshot._add_partial,
    types.MethodType: Snapshot._add_method,
    types.FunctionType: Snapshot._add_function,
}


def observe(flattener: Flattener, record: Record, watch: Watch, snapshot: Snapshot) -> None:
    """Watches what was walked where changes are reported, and adds the rest to a snapshot."""
    for obj in flattener.table.objects:
        if isinstance(obj, Variable):
            watch_variable(obj, watch)
            raw = get_slot(obj)
            if not is_leaf(raw):
                treedef = jtu.tree_structure(raw)
                snapshot.add_check(functools.partial(_has_treedef, obj, treedef))
            if obj._metadata:
                snapshot.add_static(tuple(obj._metadata.values()))
        elif isinstance(obj, Pytree):
            if not watch_object(obj, watch):
                snapshot.add_container(attributes(obj))
        else:
            snapshot.add_container(obj)
    for value in flattener.foreign:
        if isinstance(value, State):
            if not watch_state(value, watch):
                snapshot.add_levels(value._mapping)
        else:
            snapshot.add_foreign(value)
    for _, inner in iter_records(record):
        if isinstance(inner, Static):
            snapshot.add_static(inner.value)


def _has_treedef(variable: Variable, treedef: Any) -> bool:
    return jtu.tree_structure(get_slot(variable)) == treedef
