"""Objects as JAX sees them: pytrees.

An object is flattened into its data, the *children*, and its *side*, which is all else. Where the
layout of an object tells what its attributes are, nothing of that is worked out again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax.tree_util as jtu

from weft._errors import StructureError
from weft._module import kinds
from weft._module.cycles import nearest_objects, objects_among, refuse_cycle
from weft._module.flat import Flat, Side
from weft._module.kinds import Kind, holds_data, kind_of
from weft._module.layout import MOST, layout_of
from weft._path import format_path
from weft._static import Static, are_atoms, boxed
from weft._storage import attributes, make_objects
from weft._types import SCALAR_TYPES


def is_data_attribute(obj: Any, name: Any, value: Any) -> bool:
    """Returns whether an attribute is data: by its mark, else by what it holds.

    Raises:
      StructureError: for a set that holds data, which has no order to walk it in.
    """
    mark = obj._pytree_marks.get(name)
    if mark is not None:
        return mark
    if not holds_data(value):
        return False
    if isinstance(value, (set, frozenset)):
        raise set_of_data_error((name,), type(obj).__name__)
    return True


def set_of_data_error(path: tuple, root: str = "") -> StructureError:
    """Explains that sets cannot hold data."""
    where = format_path(path, root)
    return StructureError(
        f"{where} is a set that holds arrays, Variables or Modules: a set has no order, so its "
        f"elements cannot be told apart. Use a list, `{where} = list(...)`, or a dict"
    )


def _box(value: Any, is_marked: bool) -> Any:
    """Puts what is static inside a container into boxes, for JAX not to see it."""
    kind = kind_of(value)
    if kind is Kind.NODE and not isinstance(value, set):
        handler = kinds.node_type(type(value))
        new = handler.blank(value)
        handler.replace(new, [(k, _box(child, is_marked)) for k, child in handler.items(value)])
        return new
    if kind is Kind.VALUE and isinstance(value, tuple):
        handler = kinds.value_type(type(value))
        parts = handler.split(value)[1]
        return handler.join(type(value), tuple([_box(part, is_marked) for part in parts]))
    is_number = is_marked and isinstance(value, SCALAR_TYPES)
    is_static = kind is Kind.NODE or (kind is Kind.STATIC and value is not None and not is_number)
    return Static(value) if is_static else value


def _unbox(value: Any) -> Any:
    if type(value) is Static:
        return value.value
    kind = kind_of(value)
    if kind is Kind.NODE:
        handler = kinds.node_type(type(value))
        handler.replace(value, [(key, _unbox(child)) for key, child in handler.items(value)])
    elif kind is Kind.VALUE and isinstance(value, tuple):
        handler = kinds.value_type(type(value))
        return handler.join(type(value), tuple(map(_unbox, handler.split(value)[1])))
    return value


_CONTAINERS = (Kind.NODE, Kind.VALUE)


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
        if not is_fixed and is_data_attribute(obj, name, value):
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
        if is_data_attribute(obj, name, value):
            is_packed = kind_of(value) in _CONTAINERS
            children.append(_box(value, marks.get(name) is True) if is_packed else value)
            names.append(name)
            if is_packed:
                packed.append(name)
        else:
            statics[name] = boxed(value)
    refuse_cycle(obj, itertools.chain.from_iterable(map(nearest_objects, children)))
    keys = [name for name, _ in items]
    return children, Side(keys, tuple(names), tuple(packed), statics, marks)


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


def _unflatten(cls: Any, side: Side, children: Iterable[Any]) -> Any:
    own = side.blank.copy()
    own.update(zip(side.names, children, strict=True))
    for name in side.packed:
        own[name] = _unbox(own[name])
    is_plain = cls._pytree_is_plain
    (obj,) = make_objects((cls,), (side.marks,), (own if is_plain else {},))
    if not is_plain:
        obj._pytree_replace(list(own.items()))
    return obj


def register(cls: Any) -> None:
    """Tells JAX that instances of a class of objects are pytrees."""
    jtu.register_pytree_with_keys(
        cls, _flatten_with_keys, lambda side, children: _unflatten(cls, side, children), flatten
    )
