"""Content: what an object consists of, and remembering it while it stays so.

The *content* of an object are its GraphDef and its leaves, as one walk finds them. The second time
that an object is walked they are kept by the object itself, as its *memory*, and are good until
something in its structure changes.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from weft._core.filters import Filter, filter_flat, filters_to_predicates, is_structural, split_flat
from weft._core.path import Path
from weft._graph.levels import Levels, levels_of
from weft._graph.memory import Memory, slots_of
from weft._graph.records import GraphDef
from weft._graph.state import State
from weft._graph.walk import Entry, Flattener
from weft._object.pytree import Pytree, set_memory, structure_changed
from weft._variable.storage import get_slot
from weft._variable.values import is_leaf
from weft._variable.variable import is_variable

_MOST = 16


class Content:
    """What an object consists of.

    Attributes:
      graphdef: its structure.
      paths: where its leaves are.
      leaves: its Variables and arrays.
    """

    __slots__ = ("_is_plain", "_known", "graphdef", "leaves", "paths")

    def __init__(self, graphdef: GraphDef, entries: Sequence[Entry]):
        self.graphdef = graphdef
        self.paths = [entry.path for entry in entries]
        self.leaves = [entry.value for entry in entries]
        self._known: dict[Any, list[Selection]] = {}
        self._is_plain: bool | None = None

    def items(self) -> Iterator[tuple[Path, Any]]:
        """Returns the leaves with their paths."""
        return zip(self.paths, self.leaves, strict=True)

    @property
    def is_plain(self) -> bool:
        """Whether all leaves are Variables without metadata, each with an array or a number."""
        if self._is_plain is None:
            self._is_plain = all(
                is_variable(leaf) and not leaf._metadata and is_leaf(get_slot(leaf))
                for leaf in self.leaves
            )
        return self._is_plain

    @property
    def levels(self) -> Levels | None:
        """The levels of a State of all leaves; None where the object is a leaf itself."""
        return self._selections((), exhaustive=True)[0].levels

    def states(self, filters: Sequence[Filter], *, exhaustive: bool) -> list[Any]:
        """Returns one State per filter, one of all leaves without filters.

        Args:
          filters: tried in order.
          exhaustive: whether it is an error if a leaf is left over.

        Raises:
          FilterError: if one is.
        """
        return [self._state(selection) for selection in self._selections(filters, exhaustive)]

    def _selections(self, filters: Sequence[Filter], exhaustive: bool) -> list[Selection]:
        predicates = filters_to_predicates(filters)
        if not all(map(is_structural, predicates)):
            return self._find_selections(filters, exhaustive)
        found = self._known.get((predicates, exhaustive))
        if found is None:
            found = self._find_selections(filters, exhaustive)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[predicates, exhaustive] = found
        return found

    def _find_selections(self, filters: Sequence[Filter], exhaustive: bool) -> list[Selection]:
        if not filters:
            return [Selection(range(len(self.paths)), levels_of(self.paths))]
        choose = split_flat if exhaustive else filter_flat
        index = {path: i for i, path in enumerate(self.paths)}
        chosen = choose(self.items(), filters)
        groups = [[path for path, _ in group] for group in chosen]
        return [Selection([index[path] for path in paths], levels_of(paths)) for paths in groups]

    def _state(self, selection: Selection) -> Any:
        leaves = list(map(self.leaves.__getitem__, selection.positions))
        if selection.levels is None:
            return leaves[0]
        return State(selection.levels.nest(leaves), _copy=False)


class Selection(NamedTuple):
    """Leaves that make one State: which, and its levels; no levels where the leaf is all."""

    positions: Sequence[int]
    levels: Levels | None


class Remembered(Memory):
    """The content of an object, for as long as its structure stays the same."""

    __slots__ = ("_content", "_share", "_slots")

    def __init__(self, node: Pytree, content: Content, flattener: Flattener):
        self._content = content
        self._share = flattener.share
        self._slots = slots_of(flattener)
        forget = functools.partial(_forget, weakref.ref(node))
        super().__init__(flattener, content.graphdef.root, forget)

    def recall(self, node: Pytree, share: bool) -> Content | None:
        """Returns the content of its object, None if out of date or looked for otherwise."""
        if share != self._share or not self.watch.valid:
            return None
        if not self.holds():
            structure_changed(node)  # so that others, who would see it later, let go of it as well
            return None
        for i, slot in self._slots.items():
            self._content.leaves[i] = slot.read()
        return self._content


def _forget(node: weakref.ref) -> None:
    found = node()
    if found is not None:
        set_memory(found, None)


WALKED = object()
"""Memory of an object that was walked once: it is remembered if that happens again."""


def is_first_look(node: Any) -> bool:
    """Returns whether nobody has walked an object yet, and notes that it was walked now."""
    if not isinstance(node, Pytree) or node._pytree_memory is not None:
        return False
    set_memory(node, WALKED)
    return True


def content_of(node: Any, *, share: bool) -> Content:
    """Takes an object apart.

    Args:
      node: an object, or a pytree of objects.
      share: False to refuse shared references.

    Raises:
      SharedReferenceError: if `share` is False and an object is met twice.
    """
    is_object = isinstance(node, Pytree)
    memory = node._pytree_memory if is_object else None
    if type(memory) is Remembered:
        content = memory.recall(node, share)
        if content is not None:
            return content
    flattener = Flattener(share=share, root=type(node).__name__)
    content = Content(GraphDef(flattener.flatten(node)), flattener.entries)
    if is_object:
        set_memory(node, WALKED if memory is None else Remembered(node, content, flattener))
    return content
