"""Containers: how the types that are no objects of Weft are read, made and refilled.

A *node type* tells it of a type whose instances are mutable and have an identity, a *value type* of
one whose instances are taken apart and put together again. Both go past what a subclass overrides:
they use the methods of the base that is known here, and treat the *own attributes* of a subclass
(`instances.py`) as further items, with `Own` keys.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from weft._core.path import Own
from weft._object.instances import (
    blank,
    is_own_dict,
    own_attributes,
    set_own_attributes,
    storage_of,
    tie_to_own_dict,
)

Items = list[tuple[Any, Any]]


class NodeType(NamedTuple):
    """How to handle one type of mutable container.

    Attributes:
      items: returns what is in it, with keys.
      fill: replaces everything in it: `(container, items, extra)`.
      extra: returns what else it is made from; None if nothing.
    """

    items: Callable[[Any], Items]
    fill: Callable[[Any, Items, Any], None]
    extra: Callable[[Any], Any]


class ValueType(NamedTuple):
    """How to handle one immutable type.

    Attributes:
      split: returns the keys and the parts.
      join: makes a value: `(type, keys, parts)`.
    """

    split: Callable[[Any], tuple[tuple[Any, ...], tuple[Any, ...]]]
    join: Callable[[type, tuple[Any, ...], tuple[Any, ...]], Any]


def _nothing(x: Any) -> None:
    return None


def _fill_dict(x: Any, items: Items, extra: Any) -> None:
    dict.clear(x)
    dict.update(x, items)


_factory: Any = vars(collections.defaultdict)["default_factory"]


def _fill_defaultdict(x: Any, items: Items, extra: Any) -> None:
    _factory.__set__(x, extra)
    _fill_dict(x, items, extra)


def _fill_ordered(x: Any, items: Items, extra: Any) -> None:
    collections.OrderedDict.clear(x)
    for key, value in items:
        collections.OrderedDict.__setitem__(x, key, value)


def _fill_list(x: Any, items: Items, extra: Any) -> None:
    list.__setitem__(x, slice(None), [value for _, value in items])


def _fill_set(x: Any, items: Items, extra: Any) -> None:
    set.clear(x)
    set.update(x, *[value for _, value in items])


def _fill_deque(x: Any, items: Items, extra: Any) -> None:
    collections.deque.__init__(x, [value for _, value in items], extra)


def _fill_attributes(x: Any, items: Items, extra: Any) -> None:
    set_own_attributes(x, items)


_maxlen: Any = vars(collections.deque)["maxlen"]
_ATTRIBUTES = NodeType(own_attributes, _fill_attributes, _nothing)

NODE_TYPES: dict[type, NodeType] = {
    collections.defaultdict: NodeType(
        lambda x: [*dict.items(x)], _fill_defaultdict, _factory.__get__
    ),
    collections.OrderedDict: NodeType(
        lambda x: [*collections.OrderedDict.items(x)], _fill_ordered, _nothing
    ),
    dict: NodeType(lambda x: [*dict.items(x)], _fill_dict, _nothing),
    list: NodeType(lambda x: [*enumerate(list.__iter__(x))], _fill_list, _nothing),
    set: NodeType(lambda x: [("elements", frozenset(set.__iter__(x)))], _fill_set, _nothing),
    collections.deque: NodeType(
        lambda x: [*enumerate(collections.deque.__iter__(x))], _fill_deque, _maxlen.__get__
    ),
    types.SimpleNamespace: _ATTRIBUTES,
    collections.UserDict: _ATTRIBUTES,
    collections.UserList: _ATTRIBUTES,
    collections.ChainMap: _ATTRIBUTES,
}
"""Mutable containers, those first that are subclasses of others."""

_node_types = dict(NODE_TYPES)


def node_type(cls: type) -> NodeType:
    """Returns how to handle a container, or an instance of a class that lists its fields."""
    found = _node_types.get(cls)
    if found is None:
        base = next((base for base in cls.__mro__ if base in NODE_TYPES), None)
        found = _ATTRIBUTES if base is None else _with_attributes(NODE_TYPES[base], cls)
        _node_types[cls] = found
    return found


def _with_attributes(base: NodeType, cls: type) -> NodeType:
    """Returns how to handle a subclass of a container: with its own attributes."""
    storage = storage_of(cls)
    if base is _ATTRIBUTES or (storage.own is None and not storage.slots):
        return base

    def items(x: Any) -> Items:
        return [*base.items(x), *[(Own(name), value) for name, value in own_attributes(x)]]

    def extra(x: Any) -> Any:
        inner, tied = base.extra(x), is_own_dict(x)
        return None if inner is None and not tied else (inner, tied)

    def fill(x: Any, items: Items, extra: Any) -> None:
        inner, tied = extra or (None, False)
        base.fill(x, [item for item in items if type(item[0]) is not Own], inner)
        if tied and not is_own_dict(x):
            tie_to_own_dict(x)
        own = [(key.name, value) for key, value in items if type(key) is Own]
        set_own_attributes(x, own)

    return NodeType(items, fill, extra)


def make_node(cls: type, items: Items, extra: Any) -> Any:
    """Makes a mutable container."""
    new = blank(cls)
    node_type(cls).fill(new, items, extra)
    return new


def refill(container: Any, items: Items) -> None:
    """Replaces the items of a mutable container, and nothing else about it."""
    handler = node_type(type(container))
    handler.fill(container, items, handler.extra(container))


# -- values
def _split_tuple(x: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    parts: Any = x if type(x) is tuple else tuple(tuple.__iter__(x))
    fields = getattr(type(x), "_fields", None)  # asked of the type: an instance may make it up
    keys: Any = fields if _are_fields(fields, len(parts)) else tuple(range(len(parts)))
    own = () if type(x) is tuple else own_attributes(x)
    if own:
        keys = (*keys, *[Own(name) for name, _ in own])
        parts = (*parts, *[value for _, value in own])
    return keys, parts


def _are_fields(fields: Any, number: int) -> bool:
    return type(fields) is tuple and len(fields) == number


def _join_tuple(cls: Any, keys: tuple[Any, ...], parts: tuple[Any, ...]) -> Any:
    if cls is tuple:
        return parts
    own = [(key.name, part) for key, part in zip(keys, parts, strict=True) if type(key) is Own]
    new = tuple.__new__(cls, parts[: len(parts) - len(own)])
    if own:
        set_own_attributes(new, own)
    return new


def _split_partial(x: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    # Asking a partial for its `__dict__` makes one, and partials of it are another then.
    state: Any = functools.partial.__reduce__(x)[2]
    function, args, keywords, inside = state
    own = [*(inside or {}).items()] if type(x) is functools.partial else own_attributes(x)
    keys = ("func", *range(len(args)), *keywords, *[Own(name) for name, _ in own])
    return keys, (function, *args, *keywords.values(), *[value for _, value in own])


def _join_partial(cls: Any, keys: tuple[Any, ...], parts: tuple[Any, ...]) -> Any:
    pairs = [*zip(keys, parts, strict=True)][1:]
    args = [part for key, part in pairs if type(key) is int]
    keywords = {key: part for key, part in pairs if type(key) is str}
    new = functools.partial.__new__(cls, parts[0], *args, **keywords)
    own = [(key.name, part) for key, part in pairs if type(key) is Own]
    if own:
        set_own_attributes(new, own)
    return new


VALUE_TYPES: dict[type, ValueType] = {
    tuple: ValueType(_split_tuple, _join_tuple),
    types.MappingProxyType: ValueType(
        lambda x: (tuple(x), tuple(x.values())),
        lambda cls, keys, parts: cls(dict(zip(keys, parts, strict=True))),
    ),
    types.MethodType: ValueType(
        lambda x: (("__func__", "__self__"), (x.__func__, x.__self__)),
        lambda cls, keys, parts: cls(*parts),
    ),
    functools.partial: ValueType(_split_partial, _join_partial),
}
"""Immutable values. Methods and partials are static, but for the objects that they are bound to."""


def value_type(cls: type) -> ValueType:
    """Returns how to handle an immutable value of this type."""
    found = VALUE_TYPES.get(cls)
    return found or next(VALUE_TYPES[base] for base in cls.__mro__ if base in VALUE_TYPES)
