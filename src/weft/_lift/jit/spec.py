"""What a call is, taken apart: what goes in and what comes out.

A *spec* is the static side of what goes in: compared, hashed, and told to JAX. *Groups* are its
arrays, a list for each prefix. An *exit* is the static side of what comes out.
"""

# A record's `index` hides the method of that name that tuples have.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._core.static import Static, Watched
from weft._graph.records import Record, ValueDef, iter_records, watched_in, watched_metadata
from weft._graph.walk import Entry, Spot

Groups = list[list[Any]]


@jtu.register_static
class Spec:
    """The static side of a call: compares by structure and grouping.

    Attributes:
      record: the arguments' record.
      grouping: the group of each entry.
      spots: where each object was met; follows from the record, so it is not compared.
      entries: paths and prefixes of the entries; likewise.
    """

    __slots__ = ("_hash", "_statics", "entries", "grouping", "record", "spots")

    record: ValueDef

    def __init__(
        self, record: ValueDef, grouping: tuple[int, ...], spots: list[Spot], entries: list[Entry]
    ):
        self.record = record
        self.grouping = grouping
        self.spots = spots
        self.entries = [Entry(path, None, prefix) for path, _, prefix in entries]
        self._hash: int | None = None
        self._statics: list[Any] | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.record, self.grouping))
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Spec):
            return False
        return self.grouping == other.grouping and self.record == other.record

    @property
    def statics(self) -> list[Any]:
        """The static values in objects, in the order of the walk."""
        if self._statics is None:
            records = [record for _, record in iter_records(self.record)]
            self._statics = [record.value for record in records if isinstance(record, Static)]
        return self._statics

    def find_static(self, value: Any) -> int | None:
        """Returns the position of a static value, None if it is not among them."""
        return next((i for i, x in enumerate(self.statics) if x is value), None)


class Call(NamedTuple):
    """One call, taken apart.

    Attributes:
      spec: its static side.
      groups: its arrays.
      objects: the caller's objects by index.
      arrays: arrays that no Variable holds, in the order of the walk.
      entries: what was found at the leaves.
    """

    spec: Spec
    groups: Groups
    objects: list[Any]
    arrays: list[Any]
    entries: list[Entry]


class Written(NamedTuple):
    """A Variable that was written; `metadata` is None where it stayed as it was."""

    index: int
    treedef: Any
    metadata: Static | None


class Changed(NamedTuple):
    """An object or container whose content is another now."""

    index: int
    type: type
    keys: tuple[Any, ...]
    children: tuple[Record, ...]
    extra: Static


@jtu.register_static
@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """What comes out of a call, without the arrays: a JAX pytree without leaves."""

    written: tuple[Written, ...]
    changed: tuple[Changed, ...]
    out: Record
    grouping: tuple[int, ...]

    @property
    def watched(self) -> Iterator[Watched]:
        """What may change in place in the static values that come out: later, in the caller's."""
        metadata = [written.metadata for written in self.written if written.metadata is not None]
        children = itertools.chain.from_iterable(change.children for change in self.changed)
        return itertools.chain(
            itertools.chain.from_iterable(map(watched_metadata, metadata)),
            itertools.chain.from_iterable(map(watched_in, (*children, self.out))),
        )
