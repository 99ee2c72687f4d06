"""Objects as JAX sees them: pytrees.

An object is flattened into its data, the *children*, and its *side*, which is all else. Where the
layout of an object tells what its attributes are, nothing of that is worked out again.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax.tree_util as jtu

from weft._core.exported import register_export
from weft._core.static import Static, are_atoms, boxed
from weft._core.types import SCALAR_TYPES
from weft._object import kinds
from weft._object.boxes import attach, box, detach, hidden_data_error, is_bound_to, is_boxed, unbox
from weft._object.cycles import nearest_objects, objects_among, refuse_cycle
from weft._object.flat import Flat, Side
from weft._object.kinds import Kind, holds_data, kind_of
from weft._object.layout import MOST, layout_of
from weft._object.marks import Placed, without_placed
from weft._variable.storage import attributes, make_objects


def is_data_attribute(obj: Any, name: Any, value: Any) -> bool:
    """Returns whether an attribute is data: by its mark, else by what it holds."""
    mark = obj._pytree_marks.get(name)
    return holds_data(value) if mark is None else mark


def flatten(obj: Any) -> tuple[Sequence[Any], Side]:
    """Takes an object apart into what JAX is to see of its data, and its side.

    Raises:
      CycleError: if the object contains itself.
    """
    layout = layout_of(obj)
    if layout is None:
        return _flatten_items(obj)
    own, flat = attributes(obj), layout.flat
    if flat is None:
        flat = layout.flat = Flat(layout, own, obj._pytree_marks)
    if flat.is_packed:
        return _flatten_items(obj)
    for name in flat.unsure:
        value = own[name]
        is_fixed = type(value) is tuple and are_atoms(value)
        if not is_fixed and (is_data_attribute(obj, name, value) or is_bound_to(value, obj)):
            return _flatten_items(obj)
    children = flat.children(own)
    if flat.has_objects:
        refuse_cycle(obj, objects_among(children))
    return children, flat.side(own)


def _flatten_items(obj: Any) -> tuple[Sequence[Any], Side]:
    """Takes an object apart that may hold anything."""
    items, marks = obj._pytree_items(), obj._pytree_marks
    if items and not marks:
        keys, values = zip(*items, strict=True)
        if kinds.are_leaves(values):
            refuse_cycle(obj, objects_among(values))
            return values, _side_of_leaves(type(obj), keys)
    children, names, packed, statics = [], [], [], {}
    for name, value in items:
        mark: Any = marks.get(name)
        if type(mark) is Placed:
            children.append(value)
            names.append(name)
            if mark.is_packed:
                packed.append(name)
        elif is_data_attribute(obj, name, value):
            child = _child(value, name, bool(mark), type(obj).__name__)
            children.append(child)
            names.append(name)
            if child is not value:
                packed.append(name)
        else:
            statics[name] = boxed(detach(value, obj))
    refuse_cycle(obj, itertools.chain.from_iterable(map(nearest_objects, children)))
    keys = [name for name, _ in items]
    return children, Side(keys, tuple(names), tuple(packed), statics, without_placed(marks))


def _child(value: Any, name: Any, is_marked: bool, root: str) -> Any:
    """Returns what JAX sees of an attribute that is data."""
    if is_marked:
        if isinstance(value, SCALAR_TYPES):
            return value
        if kind_of(value) is Kind.INSTANCE and kinds.hides_data(value):
            raise hidden_data_error(value, (name,), root)
    return box(value, (name,), root)


def _side_of_leaves(kind: Any, names: tuple[Any, ...]) -> Side:
    layouts = kind._pytree_layouts
    side = layouts.get(names)
    if side is None:
        if len(layouts) >= MOST:
            layouts.clear()
        side = layouts[names] = Side(names, names, (), {}, {})
    return side


def _flatten_with_keys(obj: Any) -> tuple[list[tuple[Any, Any]], Side]:
    children, side = flatten(obj)
    keys = (
        jtu.SequenceKey(name) if isinstance(name, int) else jtu.GetAttrKey(name)
        for name in side.names
    )
    return list(zip(keys, children, strict=True)), side


def _placed_in(child: Any, name: Any, side: Side) -> Placed | None:
    """Returns the mark for what JAX put in the place of data; None where that is data itself."""
    mark, is_packed = side.marks.get(name), name in side.packed
    if is_packed:
        is_data = is_boxed(child) and (bool(mark) or holds_data(child))
    else:
        is_number = child is None or isinstance(child, SCALAR_TYPES)
        is_data = (bool(mark) and is_number) or holds_data(child)
    return None if is_data else Placed(is_packed, mark)


def _unflatten(cls: Any, side: Side, children: Iterable[Any]) -> Any:
    own, marks = side.blank.copy(), side.marks
    children = tuple(children)
    own.update(zip(side.names, children, strict=True))
    if side.packed or not kinds.are_leaves(children):
        placed = {name: _placed_in(own[name], name, side) for name in side.names}
        placed = {name: mark for name, mark in placed.items() if mark is not None}
        marks = {**marks, **placed} if placed else marks
        for name in side.packed:
            if name not in placed:
                own[name] = unbox(own[name])
    is_plain = cls._pytree_is_plain
    (obj,) = make_objects((cls,), (marks,), (own if is_plain else {},))
    for name in side.detached:
        own[name] = attach(own[name], obj)
    if not is_plain:
        obj._pytree_replace(list(own.items()))
    return obj


def register(cls: Any) -> None:
    """Tells JAX that instances of a class of objects are pytrees."""
    unflatten = functools.partial(_unflatten, cls)
    jtu.register_pytree_with_keys(cls, _flatten_with_keys, unflatten, flatten)
    register_export(cls, _parts_of, lambda parts, children: _build(cls, parts, children))


def _parts_of(side: Side) -> Any:
    statics = {name: box.value for name, box in side.statics.items()}
    return [list(side.blank), side.names, side.packed, statics, side.marks]


def _build(cls: Any, parts: Any, children: Sequence[Any]) -> Any:
    keys, names, packed, values, marks = parts
    statics = {name: Static(value) for name, value in values.items()}
    return _unflatten(cls, Side(keys, names, packed, statics, marks), children)
