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

from weft._graph.layout import holds_attributes_alone
from weft._graph.levels import Levels, levels_of
from weft._graph.records import (
    ArrayDef,
    GraphDef,
    NodeDef,
    Record,
    Ref,
    VariableDef,
)
from weft._graph.walk import fill_node, join_value
from weft._module.pytree import Pytree, make_blank, set_attributes
from weft._path import Path
from weft._static import Static
from weft._types import exhaust

Source = Callable[[list[Any]], Any]


class Assembly:
    """How to make the objects of a GraphDef.

    Attributes:
      leaves: the records of the leaves.
      paths: where the leaves are.
      levels: the levels of a State of all leaves; None where the object is a leaf itself.
      has_variables_alone: whether there are no arrays that no Variable holds.
    """

    __slots__ = (
        "_classes",
        "_links",
        "_makers",
        "_marks",
        "_objects",
        "_others",
        "_places",
        "_root",
        "_statics",
        "has_variables_alone",
        "leaves",
        "levels",
        "paths",
    )

    def __init__(self, root: Record):
        self.leaves: list[VariableDef | ArrayDef] = []
        self.paths: list[Path] = []
        self._places: dict[int, int] = {}  # of objects and Variables, by index
        self._classes: list[type] = []  # of objects, by number
        self._makers: list[Any] = []  # makes a blank one of the class
        self._objects: list[int] = []  # the numbers of those that are no plain containers
        self._marks: list[dict[Any, bool]] = []
        self._statics: tuple[list[int], list[dict[str, Any]]] = ([], [])
        self._links: tuple[list[int], list[str], list[int]] = ([], [], [])
        self._others: list[tuple[int, NodeDef, list[Source]]] = []  # what is inside first
        self._root = _as_source(self._visit(root, ()))
        self.levels: Levels | None = levels_of(self.paths)
        self.has_variables_alone = all(type(leaf) is VariableDef for leaf in self.leaves)

    # -- working it out
    def _visit(self, record: Any, path: Path) -> int | Source:
        """Returns the place of what a record describes, or a source."""
        kind = type(record)
        if kind is Static:
            return _constant(record.value)
        if kind is NodeDef:
            return self._node(record, path)
        if kind is Ref:
            return self._places[record.index]
        if kind is VariableDef or kind is ArrayDef:
            place = len(self.leaves)
            self.leaves.append(record)
            self.paths.append(path)
            if kind is VariableDef:
                self._places[record.index] = place
            return place
        pairs = zip(record.keys, record.children, strict=True)
        sources = [_as_source(self._visit(child, (*path, key))) for key, child in pairs]
        return lambda pool: join_value(record, tuple([source(pool) for source in sources]))

    def _node(self, record: NodeDef, path: Path) -> int:
        _, cls, keys, children, extra, _ = record
        number = len(self._classes)
        place = self._places[record.index] = -1 - number
        is_object = issubclass(cls, Pytree)
        self._classes.append(cls)
        self._makers.append(object.__new__ if is_object else cls.__new__)
        if is_object:
            self._objects.append(number)
            self._marks.append(extra.value or {})
        statics: dict[str, Any] = {}
        found: list[tuple[str, int | Source]] = []
        for key, child in zip(keys, children, strict=True):
            if type(child) is Static:
                statics[key] = child.value
            else:
                statics[key] = None  # keeps the order
                found.append((key, self._visit(child, (*path, key))))
        if is_object and holds_attributes_alone(cls) and all(type(x) is int for _, x in found):
            self._links[0].extend([len(self._statics[0])] * len(found))
            self._links[1].extend([key for key, _ in found])
            self._links[2].extend([place for _, place in found])  # type: ignore[misc]
            self._statics[0].append(number)
            self._statics[1].append(statics)
        elif is_object or keys or extra.value:  # what is empty is so already
            places = dict(found)
            sources = [
                _as_source(places[key]) if key in places else _constant(statics[key])
                for key in keys
            ]
            self._others.append((number, record, sources))
        return place

    # -- making the objects
    def build(self, leaves: Sequence[Any]) -> Any:
        """Makes the objects around Variables and arrays; returns the root."""
        nodes: list[Any] = list(map(_call, self._makers, self._classes))
        make_blank(list(map(nodes.__getitem__, self._objects)), self._marks)
        pool = [*leaves, *reversed(nodes)]
        numbers, statics = self._statics
        owns = list(map(dict.copy, statics))
        exhaust(map(set_attributes, map(nodes.__getitem__, numbers), owns))
        positions, names, places = self._links
        holders = map(owns.__getitem__, positions)
        exhaust(map(operator.setitem, holders, names, map(pool.__getitem__, places)))
        for number, record, sources in self._others:
            values = [source(pool) for source in sources]
            fill_node(nodes[number], list(zip(record.keys, values, strict=True)), record.extra)
        return self._root(pool)


_call: Any = operator.call


def _constant(value: Any) -> Source:
    return lambda pool: value


def _as_source(found: int | Source) -> Source:
    return operator.itemgetter(found) if isinstance(found, int) else found


def assembly_of(graphdef: GraphDef) -> Assembly:
    """Returns how to make the objects of a GraphDef, worked out when first asked for."""
    if graphdef.assembly is None:
        graphdef.assembly = Assembly(graphdef.root)
    return graphdef.assembly
