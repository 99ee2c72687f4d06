"""Boxes: what an attribute holds, in the form in which JAX sees it.

Inside of containers JAX takes everything for a leaf that it does not know. So what is static in
there is put into `Static` boxes, and containers that JAX does not know, such as a deque or a
subclass of `dict`, are *packed*: their parts stand in a pytree of our own.
"""

from __future__ import annotations

import collections
import enum
import types
from typing import Any, NamedTuple

import jax.tree_util as jtu
import numpy as np

from weft._core.errors import StructureError
from weft._core.exported import register_export
from weft._core.path import Own, Path, format_path
from weft._core.static import Static
from weft._object import kinds
from weft._object.cycles import cycle_error
from weft._object.kinds import Kind, holds_data, kind_of
from weft._object.node_types import VALUE_TYPES, make_node, node_type, refill, value_type


class Packed:
    """A container that JAX does not know, as a pytree.

    Attributes:
      how: the container's type.
      keys: the keys of its items.
      extra: what else it is made from.
      children: its items, in boxes.
    """

    __slots__ = ("children", "extra", "how", "keys")

    def __init__(self, how: type, keys: tuple[Any, ...], extra: Static, children: Any):
        self.how = how
        self.keys = keys
        self.extra = extra
        self.children = children


def _entries_of(x: Packed) -> list[Any]:
    """Returns the keys as JAX writes them: `['a']`, `[0]`, `.a`."""
    if issubclass(x.how, (dict, types.MappingProxyType)):
        return [jtu.GetAttrKey(k.name) if type(k) is Own else jtu.DictKey(k) for k in x.keys]
    names = [k.name if type(k) is Own else k for k in x.keys]
    return [jtu.GetAttrKey(k) if isinstance(k, str) else jtu.SequenceKey(k) for k in names]


def _pack(aux: Any, children: Any) -> Packed:
    how, keys, extra = aux
    return Packed(how, keys, extra, children)


jtu.register_pytree_with_keys(
    Packed,
    lambda x: ([*zip(_entries_of(x), x.children, strict=True)], (x.how, x.keys, x.extra)),
    _pack,
    lambda x: (x.children, (x.how, x.keys, x.extra)),
)
register_export(
    Packed,
    lambda aux: (aux[0], aux[1], aux[2].value),
    lambda parts, children: Packed(parts[0], parts[1], Static(parts[2]), children),
)

_DICTS: frozenset[Any] = frozenset({dict, collections.OrderedDict, collections.defaultdict})
_KNOWN_TO_JAX = _DICTS | {list}
_AS_THEY_ARE = (Kind.ARRAY, Kind.VARIABLE, Kind.OBJECT, Kind.FOREIGN)


def box(value: Any, path: Path, root: str, around: tuple[int, ...] = ()) -> Any:
    """Returns what an attribute holds as JAX is to see it.

    Args:
      value: the value.
      path: where it is, for errors.
      root: what the path begins with.
      around: the addresses of the containers that it is in.

    Raises:
      StructureError: if data is where nothing can see it.
      CycleError: if a container contains itself.
    """
    kind, cls = kind_of(value), type(value)
    if kind in _AS_THEY_ARE or value is None:
        return value
    if kind is Kind.BOUND or not holds_data(value):
        return Static(value)
    if hides_all(value, kind):
        raise hidden_data_error(value, path, root)
    if id(value) in around:
        raise cycle_error(path, root, f"a {cls.__name__} that it is in")
    around = (*around, id(value))
    pairs = [*kinds.items_in(value, kind)]
    is_known = cls in _KNOWN_TO_JAX
    if cls in _DICTS and not all(type(key) is str for key, _ in pairs):
        is_known = False  # JAX neither writes such dicts nor, where types differ, sorts them
        pairs = _sorted(pairs)
    keys = tuple([key for key, _ in pairs])
    children = [box(child, (*path, key), root, around) for key, child in pairs]
    if cls is list:
        return children
    has_own = any(type(key) is Own for key in keys)
    if kind is Kind.VALUE:
        if cls is tuple or (_is_named(cls) and not has_own):
            return tuple.__new__(cls, children)
        return Packed(cls, keys, Static(None), children)
    extra = node_type(cls).extra(value)
    if is_known and not has_own:
        return make_node(cls, [*zip(keys, children, strict=True)], extra)
    return Packed(cls, keys, Static(extra), children)


def _sorted(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    try:
        return sorted(pairs, key=lambda pair: pair[0])
    except TypeError:
        return sorted(pairs, key=lambda pair: (type(pair[0]).__name__, repr(pair[0])))


def _is_named(cls: type) -> bool:
    """Returns whether a class is a named tuple that is made from its fields, as JAX makes it."""
    makers = (base for base in cls.__mro__ if "__new__" in vars(base))
    return "_fields" in vars(next(makers))


def unbox(value: Any) -> Any:
    """Returns what `box` was given, with the leaves that JAX has put in their places."""
    cls: Any = type(value)
    if cls is Static:
        return value.value
    if cls is Packed:
        parts = tuple(map(unbox, value.children))
        if issubclass(value.how, tuple(VALUE_TYPES)):
            return value_type(value.how).join(value.how, value.keys, parts)
        return make_node(value.how, [*zip(value.keys, parts, strict=True)], value.extra.value)
    if cls in _KNOWN_TO_JAX:
        refill(value, [(key, unbox(child)) for key, child in node_type(cls).items(value)])
    elif cls is tuple or (issubclass(cls, tuple) and _is_named(cls)):
        return tuple.__new__(cls, map(unbox, value))
    return value


def is_boxed(value: Any) -> bool:
    """Returns whether `box` may have returned a value: whether all leaves in it are data."""
    cls: Any = type(value)
    if cls is Packed:
        return all(map(is_boxed, value.children))
    if cls in _KNOWN_TO_JAX:
        return all(is_boxed(child) for _, child in node_type(cls).items(value))
    if cls is tuple or (issubclass(cls, tuple) and _is_named(cls)):
        return all(map(is_boxed, value))
    return value is None or kind_of(value) in _AS_THEY_ARE


def hides_all(value: Any, kind: Kind) -> bool:
    """Returns whether a value that holds data can be looked into by nobody."""
    if kind is Kind.INSTANCE:
        return not kinds.lists_fields(type(value))
    is_set = isinstance(value, set) and holds_data(frozenset(set.__iter__(value)))
    return kind is Kind.STATIC or is_set


def hidden_data_error(value: Any, path: Path, root: str = "") -> StructureError:
    """Explains why data in a value cannot be seen."""
    where, name = format_path(path, root), type(value).__name__
    if isinstance(value, (set, frozenset)):
        return StructureError(
            f"{where} is a set that holds arrays, Variables or Modules: a set has no order, so its "
            f"elements cannot be told apart. Use a list, `{where} = list(...)`, or a dict"
        )
    inside, found = kinds.path_to_data(value)
    what = "an array" if kind_of(found) is Kind.ARRAY else f"a {type(found).__name__}"
    if isinstance(value, (np.ndarray, *kinds.VIEWS)):
        a_holder = "an array of objects" if isinstance(value, np.ndarray) else f"a {name}"
        return StructureError(
            f"{where} is {a_holder} that holds {what}: transforms, `nnx.state` and "
            f"checkpoints would not see it. Use a list: `{where} = list(...)`"
        )
    return StructureError(
        f"{where} is a {name} that holds {what}, at `{format_path(inside, name)}`: transforms, "
        f"`nnx.state` and checkpoints would not see it, as neither Weft nor JAX knows what a "
        f"{name} consists of. Make it a Module, `class {name}(nnx.Module)`, or a dataclass, or "
        f"register it with `jax.tree_util`; if it is no part of the model, write "
        f"`{where} = nnx.static(...)`"
    )


# -- methods and partials
class _Itself(enum.Enum):
    ITSELF = enum.auto()


class Detached(NamedTuple):
    """A method or partial, without the object that it is bound to."""

    how: type
    keys: tuple[Any, ...]
    parts: tuple[Any, ...]


def is_bound_to(value: Any, obj: Any) -> bool:
    """Returns whether a value is a method or partial of an object."""
    return any(found is obj for found in kinds.bound_objects(value))


def detach(value: Any, obj: Any) -> Any:
    """Takes an object out of a method or partial that is one of its own attributes."""
    if kind_of(value) is not Kind.BOUND:
        return value
    keys, parts = value_type(type(value)).split(value)
    new = tuple([_Itself.ITSELF if part is obj else detach(part, obj) for part in parts])
    is_same = all(a is b for a, b in zip(new, parts, strict=True))
    return value if is_same else Detached(type(value), keys, new)


def attach(value: Any, obj: Any) -> Any:
    """Binds to another object what was taken off one."""
    if type(value) is not Detached:
        return value
    parts = tuple([obj if part is _Itself.ITSELF else attach(part, obj) for part in value.parts])
    return value_type(value.how).join(value.how, value.keys, parts)
