"""How many elements and bytes each object of a graph holds.

A Variable or array counts once in every object that leads down to it, however often it is shared.
The walk numbers them; those first met inside one object are neighbours, a *span* of numbers, and
what the object shares with one met before are spans from elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax

from weft._core.errors import StructureError
from weft._core.path import Path
from weft._core.text import count_text
from weft._graph.records import (
    ArrayDef,
    NodeDef,
    Record,
    Ref,
    VariableDef,
    children_of,
    iter_records,
)
from weft._graph.walk import Flattener
from weft._object.pytree import Pytree
from weft._variable.variable import Variable

Span = tuple[int, int]
Sizes = dict[str, tuple[int, int]]
"""Number of elements and of bytes, by group."""


def tally(root: Any, group_of: Callable[[Any], str]) -> dict[int, Sizes]:
    """Returns what all objects of a graph hold, by their `id`s.

    Args:
      root: an object, or a pytree of objects.
      group_of: names the group in which a Variable or array counts.

    Raises:
      StructureError: if the graph cannot be walked.
    """
    flattener = Flattener()
    record = flattener.flatten(root)
    leaves = [entry.value for entry in flattener.entries]
    until = _running_totals(leaves, list(map(group_of, leaves)))
    sizes: dict[int, Sizes] = {}
    for index, spans in _spans(record).items():
        sizes[id(flattener.table.objects[index])] = {
            group: total
            for group, sums in until.items()
            if (total := _total(sums, spans)) is not None
        }
    return sizes


def _running_totals(leaves: list[Any], groups: list[str]) -> dict[str, list[tuple[int, int, int]]]:
    """Returns for each group the leaves, elements and bytes before each leaf."""
    parts: dict[str, list[tuple[int, int, int]]] = {
        group: [(0, 0, 0)] * len(leaves) for group in groups
    }
    for i, (leaf, group) in enumerate(zip(leaves, groups, strict=True)):
        raw = leaf._raw if isinstance(leaf, Variable) else leaf
        arrays = [x for x in jax.tree.leaves(raw) if hasattr(x, "dtype")]
        size = sum(x.size * x.dtype.itemsize for x in arrays)
        parts[group][i] = (1, sum(x.size for x in arrays), size)
    return {
        group: list(zip(*map(_accumulated, zip(*sums, strict=True)), strict=True))
        for group, sums in parts.items()
    }


def _accumulated(numbers: Iterable[int]) -> Iterable[int]:
    return itertools.accumulate(numbers, initial=0)


def _total(sums: list[tuple[int, int, int]], spans: list[Span]) -> tuple[int, int] | None:
    leaves, elements, size = (
        sum(sums[end][i] - sums[start][i] for start, end in spans) for i in range(3)
    )
    return (elements, size) if leaves else None


def _spans(root: Record) -> dict[int, list[Span]]:
    """Returns for each index which leaves can be reached from there, going down."""
    found: dict[int, list[Span]] = {}
    position = 0
    path: list[tuple[Record, Any, int, set[Span]]] = []

    def leave(record: Record, start: int, elsewhere: set[Span]) -> None:
        spans = _without_inner({*elsewhere, (start, position)})
        if isinstance(record, (NodeDef, VariableDef)):
            found[record.index] = spans
        if path:
            path[-1][3].update(span for span in spans if span != (start, position))

    def enter(record: Record) -> None:
        nonlocal position
        if isinstance(record, Ref):  # one that leads up again is not there yet, and adds nothing
            path[-1][3].update(found.get(record.index, ()))
        elif isinstance(record, (VariableDef, ArrayDef)):
            position += 1
            leave(record, position - 1, set())
        else:
            path.append((record, children_of(record), position, set()))

    enter(root)
    while path:
        record, rest, start, elsewhere = path[-1]
        child = next(rest, None)
        if child is None:
            path.pop()
            leave(record, start, elsewhere)
        else:
            enter(child[1])
    return found


class Counts:
    """Says how many elements and bytes an object of a graph holds, by Variable type.

    Args:
      root: an object, or a pytree of objects.
    """

    def __init__(self, root: Any):
        self._sizes = _by_type(root)

    def __call__(self, x: Any) -> str:
        """Returns the words for an object, none for anything else."""
        if not isinstance(x, Pytree):
            return ""
        if self._sizes and id(x) not in self._sizes:  # in what the walk does not look into
            self._sizes.update(_by_type(x))
        sizes = self._sizes.get(id(x), {}).items()
        return ", ".join(f"{name}: {count_text(*total)}" for name, total in sizes if any(total))


def _by_type(root: Any) -> dict[int, Sizes]:
    try:
        return tally(root, lambda v: type(v).__name__ if isinstance(v, Variable) else "arrays")
    except (StructureError, RecursionError):
        return {}  # what is wrong with an object must not keep it from being shown


def own_leaves(root: Any) -> dict[int, list[tuple[Path, Any]]]:
    """Returns the Variables and arrays of each object that are in no object below it.

    Returns:
      By the `id`s of objects, paths from there and leaves; those of a container that an object
      shares with another one belong to the first.
    """
    flattener = Flattener()
    record = flattener.flatten(root)
    objects = flattener.table.objects
    leaves = iter(flattener.entries)
    found: dict[int, list[tuple[Path, Any]]] = {}
    owners: list[tuple[int, int]] = []  # how long its path is, and its id
    for path, part in iter_records(record):
        while owners and owners[-1][0] >= len(path) > 0:
            owners.pop()
        if isinstance(part, NodeDef):
            obj = objects[part.index]
            if isinstance(obj, Pytree):
                owners.append((len(path), id(obj)))
                found[id(obj)] = []
            continue
        leaf = next(leaves).value if isinstance(part, (VariableDef, ArrayDef)) else None
        if isinstance(part, Ref) and isinstance(objects[part.index], Variable):
            leaf = objects[part.index]
        if leaf is not None and owners:
            depth, owner = owners[-1]
            found[owner].append((path[depth:], leaf))
    return found


def _without_inner(spans: set[Span]) -> list[Span]:
    """Drops spans inside others; two spans never overlap otherwise."""
    kept: list[Span] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or end > kept[-1][1]:
            kept.append((start, end))
    return kept
