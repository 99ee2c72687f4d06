"""Layouts: what is known of an object from its class and the types of its attributes alone.

Objects of one class mostly have the same attributes, of the same types, with the same marks and
static values. A *layout* knows the order of the names and which attributes have to be looked into;
the records of the others are kept for the static values that were met.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from weft._core.caches import forgets
from weft._core.static import Static, are_atoms, boxed
from weft._object import kinds
from weft._object.kinds import Kind, kind_of
from weft._object.marks import refuse_marks
from weft._variable.storage import ObjectStorage, attributes

MOST = 64


class Layout:
    """What objects with the same names and types of attributes share.

    Attributes:
      keys: the names, sorted.
      open: `(position, name, kind, marked)` of the attributes to look into; the kind is None
        where the type does not tell it, and numbers below are data where it is marked.
      boxed: `(position, name)` of those that are static, but not of a type that tells values apart.
      fixed: the positions of the other static ones.
      flat: how JAX sees such objects, where that was asked for.
    """

    __slots__ = ("_atoms", "_blanks", "boxed", "fixed", "flat", "keys", "open")

    def __init__(self, own: dict[str, Any], marks: dict[str, bool]):
        self.keys = tuple(sorted(own))
        self.open: list[tuple[int, str, Kind | None, bool]] = []
        self.boxed: list[tuple[int, str]] = []
        self.fixed: list[int] = []
        self.flat: Any = None
        for i, name in enumerate(self.keys):
            value, mark = own[name], marks.get(name)
            kind = kind_of(value) if kinds.is_settled(value) else None
            is_static = mark is False or (mark is None and kind is Kind.STATIC)
            if value is None or (mark is None and (are_atoms((value,)) or isinstance(value, type))):
                self.fixed.append(i)
            elif is_static and (mark is False or not isinstance(value, kinds.CLOSED_TYPES)):
                self.boxed.append((i, name))
            else:
                self.open.append((i, name, kind, bool(mark) and kind is not Kind.OBJECT))
        names = [self.keys[i] for i in self.fixed]
        self._atoms: Callable[[Any], Any] = operator.itemgetter(*names) if names else _nothing
        self._blanks: dict[Any, list[Any]] = {}

    def records(self, own: dict[str, Any]) -> list[Any]:
        """Returns the records of an object's attributes, None for those to look into."""
        atoms = self._atoms(own)
        blank = self._blanks.get(atoms)
        if blank is None:
            blank = self._make_blank(atoms, own)
        records = blank.copy()
        for i, name in self.boxed:
            records[i] = boxed(own[name])
        return records

    def _make_blank(self, atoms: Any, own: dict[str, Any]) -> list[Static | None]:
        blank: list[Static | None] = [None] * len(self.keys)
        for i in self.fixed:
            blank[i] = boxed(own[self.keys[i]])
        if len(self._blanks) >= MOST:
            self._blanks.clear()
        self._blanks[atoms] = blank
        return blank


def _nothing(own: Any) -> None:
    return None


def layout_of(obj: Any) -> Layout | None:
    """Returns the layout of an object, None for one that holds other things than attributes."""
    kind = type(obj)
    if not kind._pytree_is_plain:
        return None
    own, marks = attributes(obj), obj._pytree_marks
    key: Any = (tuple(own), *map(type, own.values()))
    if marks:
        key = (key, *marks.items())
    layouts = kind._pytree_layouts
    layout = layouts.get(key)
    if layout is None:
        if len(layouts) >= MOST:
            layouts.clear()
        refuse_marks(own, kind.__name__)
        layout = layouts[key] = Layout(own, marks)
    return layout


@forgets
def clear() -> None:
    """Forgets the layouts of all classes."""
    classes: list[type] = ObjectStorage.__subclasses__()
    while classes:
        kind: Any = classes.pop()
        kind._pytree_layouts.clear()
        classes.extend(kind.__subclasses__())
