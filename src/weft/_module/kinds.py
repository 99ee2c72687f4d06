"""What an attribute holds, decided by looking at it.

A value is *data* if arrays, Variables or objects are in it; everything else is *static*. A *kind*
says how to look into a value. *Nodes* are mutable and have an identity that survives a transform:
objects, lists, dicts and sets. *Values* (tuples, bound methods, foreign pytrees, ...) are taken
apart and put together again.
"""

from __future__ import annotations

import collections
import enum
import functools
import types
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._path import key_of_entry
from weft._types import ARRAY_TYPES
from weft._variable import Variable


class Kind(enum.IntEnum):
    """How to look into a value."""

    STATIC = enum.auto()
    ARRAY = enum.auto()
    VARIABLE = enum.auto()
    OBJECT = enum.auto()
    NODE = enum.auto()
    VALUE = enum.auto()
    FOREIGN = enum.auto()


class NodeType(NamedTuple):
    """How to read, make and refill one type of plain mutable container."""

    items: Callable[[Any], list[tuple[Any, Any]]]
    blank: Callable[[Any], Any]
    replace: Callable[[Any, list[tuple[Any, Any]]], None]


class ValueType(NamedTuple):
    """How to take apart and put together one immutable type."""

    split: Callable[[Any], tuple[tuple[Any, ...], tuple[Any, ...]]]
    join: Callable[[type, tuple[Any, ...]], Any]


def _replace_list(x: list, items: list[tuple[Any, Any]]) -> None:
    x[:] = [value for _, value in items]


def _replace_dict(x: dict, items: list[tuple[Any, Any]]) -> None:
    x.clear()
    x.update(items)


def _replace_set(x: set, items: list[tuple[Any, Any]]) -> None:
    x.clear()
    x.update(*(value for _, value in items))


def _blank_defaultdict(x: Any) -> Any:
    new = _blank(x)
    new.default_factory = x.default_factory
    return new


def _blank(x: Any) -> Any:
    cls: Any = type(x)
    return cls.__new__(cls)


NODE_TYPES: dict[type, NodeType] = {
    collections.defaultdict: NodeType(lambda x: list(x.items()), _blank_defaultdict, _replace_dict),
    collections.OrderedDict: NodeType(lambda x: list(x.items()), _blank, _replace_dict),
    dict: NodeType(lambda x: list(x.items()), _blank, _replace_dict),
    list: NodeType(lambda x: list(enumerate(x)), _blank, _replace_list),
    set: NodeType(lambda x: [("elements", frozenset(x))], _blank, _replace_set),
}


def _split_tuple(x: tuple) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return getattr(x, "_fields", tuple(range(len(x)))), tuple(x)


def _join_tuple(kind: Any, parts: tuple[Any, ...]) -> tuple:
    return kind._make(parts) if hasattr(kind, "_fields") else kind(parts)


VALUE_TYPES: dict[type, ValueType] = {
    tuple: ValueType(_split_tuple, _join_tuple),
    types.MethodType: ValueType(
        lambda x: (("__func__", "__self__"), (x.__func__, x.__self__)),
        lambda kind, parts: kind(*parts),
    ),
    functools.partial: ValueType(
        lambda x: (("func", "args", "keywords"), (x.func, x.args, x.keywords)),
        lambda kind, parts: kind(parts[0], *parts[1], **parts[2]),
    ),
}

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type, types.FunctionType, frozenset)
_KINDS: dict[type, Kind] = dict.fromkeys(_ATOMS, Kind.STATIC)
_OBJECT_TYPES: list[type] = []


def declare_object_type(kind: type) -> None:
    """Declares the base class whose instances are objects."""
    _OBJECT_TYPES.append(kind)


def kind_of(value: Any) -> Kind:
    """Returns how to look into a value."""
    cls = type(value)
    kind = _KINDS.get(cls)
    if kind is not None:
        return kind
    kind = _find_kind(cls, value)
    # A class that JAX does not know yet may still be registered: only the others are remembered.
    if kind is not Kind.STATIC:
        _KINDS[cls] = kind
    return kind


def is_array_type(cls: type) -> bool:
    """Returns whether values of a type are arrays; False also where none was met before."""
    return _KINDS.get(cls) is Kind.ARRAY


_leaf_types: set[type] = set()


def are_leaves(values: Iterable[Any]) -> bool:
    """Returns whether all values are arrays, Variables or objects."""
    if _leaf_types.issuperset(map(type, values)):
        return True
    if not all(kind_of(value) in (Kind.ARRAY, Kind.VARIABLE, Kind.OBJECT) for value in values):
        return False
    _leaf_types.update(type(value) for value in values if is_settled(value))
    return True


def is_settled(value: Any) -> bool:
    """Returns whether all values of this type are and will be of one kind."""
    return kind_of(value) is not Kind.STATIC or type(value) in _KINDS


def _find_kind(cls: type, value: Any) -> Kind:
    if issubclass(cls, Variable):
        return Kind.VARIABLE
    if issubclass(cls, tuple(_OBJECT_TYPES)):
        return Kind.OBJECT
    if isinstance(value, ARRAY_TYPES):  # tracers are arrays by instance, not by class
        return Kind.ARRAY
    is_tuple = issubclass(cls, tuple)
    if cls in VALUE_TYPES or (is_tuple and hasattr(cls, "_fields")):
        return Kind.VALUE
    if cls not in NODE_TYPES and not jtu.all_leaves([value]):
        return Kind.FOREIGN
    if is_tuple:
        return Kind.VALUE
    if issubclass(cls, tuple(NODE_TYPES)):
        return Kind.NODE
    return Kind.STATIC


def _nearest(table: dict[type, Any], cls: type) -> Any:
    found = table.get(cls)
    if found is not None:
        return found
    return next(table[base] for base in cls.__mro__ if base in table)


def node_type(cls: type) -> NodeType:
    """Returns how to handle a plain mutable container of this type."""
    return _nearest(NODE_TYPES, cls)


def value_type(cls: type) -> ValueType:
    """Returns how to handle an immutable value of this type."""
    return _nearest(VALUE_TYPES, cls)


def split_foreign(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Takes one level of a pytree registered with JAX apart: keys, children, treedef."""
    entries, treedef = jtu.tree_flatten_with_path(value, is_leaf=lambda x: x is not value)
    keys = tuple(key_of_entry(path[0]) if path else None for path, _ in entries)
    return keys, tuple(child for _, child in entries), treedef


def children_of(value: Any, kind: Kind) -> Iterable[Any]:
    """Returns what is directly inside a container that is no object."""
    if kind is Kind.NODE:
        return [child for _, child in node_type(type(value)).items(value)]
    if kind is Kind.VALUE:
        return value_type(type(value)).split(value)[1]
    return split_foreign(value)[1]


def holds_data(value: Any) -> bool:
    """Returns whether arrays, Variables or objects are anywhere in a value."""
    kind = kind_of(value)
    if kind is Kind.STATIC:
        return isinstance(value, frozenset) and any(map(holds_data, value))
    if kind in (Kind.ARRAY, Kind.VARIABLE, Kind.OBJECT):
        return True
    return any(map(holds_data, children_of(value, kind)))
