"""Assemblies: making all the objects of a GraphDef at once.

An *assembly* is worked out from a GraphDef once. It makes the objects blank, in bulk, and then
fills them: static attributes first, then the *links* from objects to what is in them. A link ends
at a *place* in the *pool*: the leaves in the order of the walk, then the objects backwards, so that
the places of objects are negative. What is no link is a *source*: a function of the pool.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from weft._core.path import Path
from weft._core.static import Static
from weft._graph.levels import Levels
from weft._graph.records import (
    ArrayDef,
    GraphDef,
    Late,
    LateRef,
    NodeDef,
    Record,
    Ref,
    ValueDef,
    VariableDef,
    leaves_of,
)
from weft._graph.walk import fill_node, join_value
from weft._object.instances import blank
from weft._object.pytree import Pytree
from weft._variable.storage import make_objects

Source = Callable[[list[Any]], Any]
Fill = Callable[[list[Any], list[dict[str, Any]]], None]


class Assembly:
    """How to make the objects of a GraphDef.

    Attributes:
      leaves: the records of the leaves.
      levels: the levels of a State of all leaves; None where the object is a leaf itself.
      has_variables_alone: whether there are no arrays that no Variable holds.
    """

    __slots__ = (
        "_attributes",
        "_blanks",
        "_classes",
        "_containers",
        "_fills",
        "_levels",
        "_links",
        "_marks",
        "_paths",
        "_places",
        "_record",
        "_root",
        "has_variables_alone",
        "leaves",
        "levels",
    )

    def __init__(self, root: Record):
        self._record = root
        self._paths: list[Path] | None = None
        self.leaves: list[VariableDef | ArrayDef] = []
        self._levels = Levels()
        self._places: dict[int, int] = {}  # of objects and Variables, by index
        self._blanks: dict[tuple[Any, ...], dict[Any, None]] = {}  # attributes by their names
        self._classes: list[type] = []  # of objects
        self._marks: list[dict[Any, bool]] = []
        self._attributes: list[dict[str, Any]] = []  # the static ones; what is linked is None
        self._containers: list[tuple[int, Any]] = []  # where they come among the objects
        self._links: tuple[list[int], list[str], list[int]] = ([], [], [])
        self._fills: list[Fill] = []  # what is inside first
        if type(root) is NodeDef:
            found = self._node(root, 0)
        elif type(root) is ValueDef:
            found = self._value(root, 0)
        else:
            found = self._visit(root, 0, None)
        self._root = _as_source(found)
        self.levels = None if type(root) in (VariableDef, ArrayDef) else self._levels
        self.has_variables_alone = {*map(type, self.leaves)} <= {VariableDef}
        size = len(self.leaves) + len(self._classes) + len(self._containers)
        self._links[2][:] = [place % size for place in self._links[2]]  # positive ones are faster

    @property
    def paths(self) -> list[Path]:
        """Where the leaves are."""
        if self._paths is None:
            self._paths = [path for path, _ in leaves_of(self._record)]
        return self._paths

    # -- working it out
    def _visit(self, record: Any, level: int, key: Any) -> int | Source:
        """Returns the place of what a record inside a level describes, or a source."""
        kind = type(record)
        if kind is VariableDef or kind is ArrayDef:
            place = len(self.leaves)
            self.leaves.append(record)
            self._levels.add_leaf(level, key)
            if kind is VariableDef:
                self._places[record.index] = place
            return place
        if kind is NodeDef or kind is ValueDef:
            before = len(self.leaves)
            below = self._levels.add(level, key)
            found = self._node(record, below) if kind is NodeDef else self._value(record, below)
            if len(self.leaves) == before:
                self._levels.drop()
            return found
        if kind is Late:
            return self._visit(record.record, level, key)
        if kind is LateRef:  # its place is known when the objects are made
            places, index = self._places, record.index
            return lambda pool: pool[places[index]]
        return self._places[record.index] if kind is Ref else _constant(record.value)

    def _node(self, record: NodeDef, level: int) -> int:
        index, cls, keys, children, extra, _ = record
        ordinal = len(self._classes)
        number = ordinal + len(self._containers)
        place = self._places[index] = -1 - number
        is_object = issubclass(cls, Pytree)
        if is_object:
            self._classes.append(cls)
            self._marks.append(extra.value or Pytree._pytree_class_marks)
        else:
            self._containers.append((number, cls))
        if not is_object or not cls._pytree_is_plain:
            if is_object:
                self._attributes.append({})
            if is_object or keys or extra.value:  # what is empty is so already
                self._fills.append(_filler(place, record, self._sources(record, level)))
            return place
        blank = self._blanks.get(keys)
        if blank is None:
            blank = self._blanks[keys] = dict.fromkeys(keys)
        own = blank.copy()
        self._attributes.append(own)
        ordinals, names, places = self._links
        for key, child in zip(keys, children, strict=True):
            if type(child) is Static:
                own[key] = child.value
                continue
            found = self._visit(child, level, key)
            if isinstance(found, int):
                ordinals.append(ordinal)
                names.append(key)
                places.append(found)
            else:
                self._fills.append(_setter(ordinal, key, found))
        return place

    def _value(self, record: ValueDef, level: int) -> Source:
        sources = self._sources(record, level)
        return lambda pool: join_value(record, tuple([source(pool) for source in sources]))

    def _sources(self, record: NodeDef | ValueDef, level: int) -> list[Source]:
        pairs = zip(record.keys, record.children, strict=True)
        return [_as_source(self._visit(child, level, key)) for key, child in pairs]

    # -- making the objects
    def build(self, leaves: Sequence[Any]) -> Any:
        """Makes the objects around Variables and arrays; returns the root."""
        owns = [own.copy() for own in self._attributes]
        nodes = make_objects(self._classes, self._marks, owns)
        for number, cls in self._containers:
            nodes.insert(number, blank(cls))
        pool = [*leaves, *reversed(nodes)]
        for ordinal, name, place in zip(*self._links, strict=True):
            owns[ordinal][name] = pool[place]
        for fill in self._fills:
            fill(pool, owns)
        return self._root(pool)


def _setter(ordinal: int, key: str, source: Source) -> Fill:
    def fill(pool: list[Any], owns: list[dict[str, Any]]) -> None:
        owns[ordinal][key] = source(pool)

    return fill


def _filler(place: int, record: NodeDef, sources: list[Source]) -> Fill:
    def fill(pool: list[Any], owns: list[dict[str, Any]]) -> None:
        values = [source(pool) for source in sources]
        fill_node(pool[place], list(zip(record.keys, values, strict=True)), record.extra)

    return fill


def _constant(value: Any) -> Source:
    return lambda pool: value


def _as_source(found: int | Source) -> Source:
    return operator.itemgetter(found) if isinstance(found, int) else found


def assembly_of(graphdef: GraphDef) -> Assembly:
    """Returns how to make the objects of a GraphDef, worked out when first asked for."""
    if graphdef.assembly is None:
        graphdef.assembly = Assembly(graphdef.root)
    return graphdef.assembly
