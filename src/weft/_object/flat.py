"""What JAX sees of objects whose attributes are known by their layout.

The *side* of an object is all that JAX keeps of it besides its children, which are its data: as
part of a treedef it is hashed and compared on every call of a jitted function. So objects with
equal static values have the very same side, as far as these values may be shared.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weft._core.static import Static, boxed
from weft._core.types import SCALAR_TYPES
from weft._object.boxes import Detached
from weft._object.kinds import Kind
from weft._object.layout import MOST, Layout
from weft._object.marks import Placed, without_placed

_LEAVES = (Kind.ARRAY, Kind.VARIABLE, Kind.OBJECT)


class Side:
    """What JAX keeps of an object besides its children; equal for objects that differ in these.

    Attributes:
      names: which attributes the children are.
      packed: those of them that are containers, in a form for JAX.
      statics: the other attributes, with their values in boxes.
      marks: which attributes are marked.
      blank: all attributes in their order, without the children.
      detached: those of the static ones that are bound to the object itself.
    """

    __slots__ = ("_hash", "_parts", "blank", "detached", "marks", "names", "packed", "statics")

    def __init__(
        self,
        keys: Sequence[Any],
        names: tuple[Any, ...],
        packed: tuple[Any, ...],
        statics: dict[Any, Static],
        marks: dict[Any, bool],
    ):
        self.names = names
        self.packed = packed
        self.statics = statics
        self.marks = marks
        self.blank = {key: statics[key].value if key in statics else None for key in keys}
        self.detached = [key for key in statics if type(statics[key].value) is Detached]
        self._parts = (names, packed, *statics.items(), *marks.items())
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self._parts)
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Side and self._parts == other._parts)

    def __repr__(self) -> str:
        shown = {key: box.value for key, box in self.statics.items()}
        return f"Side(children={self.names}, statics={shown}, marks={self.marks})"


class Flat:
    """How objects of one layout are flattened.

    Attributes:
      children: returns the attributes that are children as they are, as a tuple.
      unsure: the names of those that may be data which JAX cannot be given as it is.
      is_packed: whether one of these is marked as data.
      has_objects: whether there are objects among the children.
    """

    __slots__ = (
        *("_fixed", "_floats", "_functions", "_keys", "_loose", "_marks", "_names", "_sides"),
        *("children", "has_objects", "is_packed", "unsure"),
    )

    def __init__(self, layout: Layout, own: dict[str, Any], marks: dict[str, bool]):
        kind_by_name = {name: kind for _, name, kind, _ in layout.open}
        self._keys, self._marks = layout.keys, without_placed(marks)
        self._names = tuple(
            [
                name
                for name in layout.keys
                if self._is_child(name, own, kind_by_name) or _is_placed_leaf(marks.get(name))
            ]
        )
        self.children = _getter(self._names, always_tuple=True)
        self.has_objects = Kind.OBJECT in kind_by_name.values()
        dtypes = [n for n in layout.keys if isinstance(own[n], np.dtype) and not marks.get(n)]
        self.unsure = tuple([n for n in kind_by_name if n not in {*self._names, *dtypes}])
        self.is_packed = any(marks.get(name) for name in self.unsure)
        # How static values are told apart: some compare as they should, others by their boxes.
        loose = [*(name for _, name in layout.boxed), *self.unsure]
        self._functions = [name for name in loose if type(own[name]) is types.FunctionType]
        floats = [name for name in loose if type(own[name]) is float]
        fixed = [*(layout.keys[i] for i in layout.fixed), *self._functions, *dtypes]
        self._fixed = _getter(fixed)
        self._floats = _getter(floats, always_tuple=True) if floats else None
        self._loose = [name for name in loose if name not in {*fixed, *floats}]
        self._sides: dict[Any, Side] = {}

    def _is_child(self, name: str, own: dict[str, Any], kinds: dict[str, Kind | None]) -> bool:
        is_number = own[name] is None or isinstance(own[name], SCALAR_TYPES)
        return kinds.get(name) in _LEAVES or (bool(self._marks.get(name)) and is_number)

    def side(self, own: dict[str, Any]) -> Side:
        """Returns the side of an object, of which the attributes `unsure` are static."""
        key = self._fixed(own)
        if self._floats is not None:
            key = (key, *map(float.hex, self._floats(own)))  # zeros have signs
        boxes: list[Static] = []
        if self._loose:
            boxes = [boxed(own[name]) for name in self._loose]
            key = (key, *map(id, boxes))  # of boxes that the side keeps alive
        side = self._sides.get(key)
        if side is None:
            side = self._make_side(own, dict(zip(self._loose, boxes, strict=True)))
            # What each object has for itself, a dict or a config, must not become another's.
            checked = [*boxes, *map(side.statics.__getitem__, self._functions)]
            if all(boxed(box.value) is box for box in checked):
                if len(self._sides) >= MOST:
                    self._sides.clear()
                self._sides[key] = side
        return side

    def _make_side(self, own: dict[str, Any], boxes: dict[str, Static]) -> Side:
        names = [name for name in self._keys if name not in self._names]
        statics = {name: boxes[name] if name in boxes else boxed(own[name]) for name in names}
        return Side(self._keys, self._names, (), statics, self._marks)


def _is_placed_leaf(mark: Any) -> bool:
    return type(mark) is Placed and not mark.is_packed


def _getter(names: Sequence[str], *, always_tuple: bool = False) -> Callable[[Any], Any]:
    """Returns what reads these attributes off a dict, in C."""
    if not names:
        return _no_values
    if len(names) == 1 and always_tuple:
        return lambda own, name=names[0]: (own[name],)
    return operator.itemgetter(*names)


def _no_values(own: Any) -> tuple[()]:
    return ()
