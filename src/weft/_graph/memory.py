"""Memories: what a walk saw of some objects, for as long as they are so.

What an object consists of (`content`) and the plans of compiled functions are such memories.
Objects, Variables and States report to a *watch* that their structure changes; what cannot report
is compared with *snapshots*. Arrays that no Variable holds are read anew, each from its *slot*.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._graph.records import Record, watched_in
from weft._graph.snapshot import Snapshot
from weft._graph.state import State, watch_state
from weft._graph.walk import Flattener
from weft._object.pytree import Pytree, attributes, watch_object
from weft._variable.keeper import watch_variable
from weft._variable.storage import get_slot
from weft._variable.values import is_leaf
from weft._variable.variable import Variable
from weft._variable.watch import Watch


class Memory:
    """What a walk saw.

    Args:
      flattener: that walked.
      record: what it returned.
      on_void: called once something has changed.
      thread: the thread that will read arrays unseen, if any does.

    Attributes:
      watch: says whether something has reported a change.
      snapshots: of what does not report.
    """

    __slots__ = ("__weakref__", "snapshots", "watch")

    def __init__(
        self,
        flattener: Flattener,
        record: Record,
        on_void: Callable[[], None],
        thread: int | None = None,
    ):
        self.watch = Watch(on_void, thread=thread)
        self.snapshots: list[Snapshot] = []
        snapshot = Snapshot()
        observe(flattener, record, self.watch, snapshot)
        self.depend_on(snapshot.close())

    def __del__(self) -> None:
        self.watch.valid = False  # so that the objects forget it

    def depend_on(self, snapshot: Snapshot | None) -> None:
        """Makes the memory good only as long as what a snapshot shows is as it was."""
        if snapshot is not None and snapshot not in self.snapshots:
            self.snapshots.append(snapshot)

    def holds(self) -> bool:
        """Returns whether everything is as it was."""
        for snapshot in self.snapshots:
            if not snapshot.holds():
                self.watch.void()
        return self.watch.valid


class Slot(NamedTuple):
    """Where an array that no Variable holds is read."""

    holder: Any
    key: Any

    def read(self) -> Any:
        return self.holder[self.key]


def slots_of(flattener: Flattener) -> dict[int, Slot]:
    """Returns where the arrays that no Variable holds are read, by entry."""
    holders = {
        spot.path: obj
        for obj, spot in zip(flattener.table.objects, flattener.table.spots, strict=True)
        if isinstance(obj, Pytree)
    }
    slots: dict[int, Slot] = {}
    for i, (path, value, _) in enumerate(flattener.entries):
        if not isinstance(value, Variable):
            # Attributes may get another array without being reported, nothing else may.
            own = attributes(holders[path[:-1]]) if path[:-1] in holders else {}
            is_attribute = bool(path) and own.get(path[-1]) is value
            slots[i] = Slot(own, path[-1]) if is_attribute else Slot((value,), 0)
    return slots


def observe(flattener: Flattener, record: Record, watch: Watch, snapshot: Snapshot) -> None:
    """Watches what was walked where changes are reported, and adds the rest to a snapshot."""
    for obj in flattener.table.objects:
        if isinstance(obj, Variable):
            watch_variable(obj, watch)
            raw = get_slot(obj)
            if not is_leaf(raw):
                treedef = jtu.tree_structure(raw)
                snapshot.add_check(functools.partial(_has_treedef, obj, treedef))
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
    snapshot.add_static(watched_in(record))


def _has_treedef(variable: Variable, treedef: Any) -> bool:
    return jtu.tree_structure(get_slot(variable)) == treedef
