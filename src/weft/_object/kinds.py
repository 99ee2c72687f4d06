"""What an attribute holds, decided by looking at it.

A value is *data* if arrays, Variables or objects are in it; everything else is *static*. A *kind*
says how to look into a value. *Nodes* are mutable and have an identity that survives a transform:
objects, lists, dicts, sets and the like. *Values* (tuples, foreign pytrees, ...) are taken apart
and put together again. *Bound* callables, methods and partials, are static, but belong to an
object.

*Instances* are what is left: objects of classes that neither JAX nor Weft knows. They are static,
too, as long as there is no data in them. Where there is, those of a class that lists its fields
(dataclasses, attrs, pydantic) are nodes; others cannot be looked into, and hold nothing but what is
*hidden* from every transform.
"""

from __future__ import annotations

import enum
import functools
import itertools
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.tree_util as jtu
import numpy as np

from weft._core.path import Path, key_of_entry
from weft._core.types import ARRAY_TYPES
from weft._object.instances import storage_of
from weft._object.node_types import NODE_TYPES, VALUE_TYPES, node_type, value_type
from weft._variable.variable import Variable


class Kind(enum.IntEnum):
    """How to look into a value."""

    STATIC = enum.auto()
    ARRAY = enum.auto()
    VARIABLE = enum.auto()
    OBJECT = enum.auto()
    NODE = enum.auto()
    VALUE = enum.auto()
    FOREIGN = enum.auto()
    BOUND = enum.auto()
    INSTANCE = enum.auto()


_ATOMS = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, type),
        *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
    }
)
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
CLOSED_TYPES = (frozenset, *VIEWS)
"""Types whose values are static, and may hold others, though they are not taken apart."""
_KINDS: dict[type, Kind] = {
    **dict.fromkeys((*_ATOMS, *CLOSED_TYPES), Kind.STATIC),
    **dict.fromkeys((types.MethodType, functools.partial), Kind.BOUND),
}
_UNREGISTERED: dict[type, Kind] = {}  # what classes are that JAX does not know, so far
_OBJECT_TYPES: list[type] = []
_DATA_TYPES: set[type] = set()

_CLOSED = frozenset({"jax", "jaxlib", "logging", "numpy", "optax", "weft"})
"""Packages with classes whose instances hold no data that anybody else put there."""


def declare_object_type(kind: type) -> None:
    """Declares the base class whose instances are objects."""
    _OBJECT_TYPES.append(kind)


def declare_data_type(kind: type) -> None:
    """Declares a class whose instances are leaves, unless JAX knows how to look into them."""
    _DATA_TYPES.add(kind)
    for known in (_KINDS, _UNREGISTERED):
        known.pop(kind, None)


def kind_of(value: Any) -> Kind:
    """Returns how to look into a value."""
    cls = type(value)
    kind = _KINDS.get(cls)
    if kind is not None:
        return kind
    kind = _UNREGISTERED.get(cls)
    if kind is not None and jtu.all_leaves((value,)):
        return kind
    if isinstance(value, np.ndarray):
        return Kind.ARRAY if _is_numeric(value.dtype) else Kind.STATIC
    kind = _find_kind(cls, value)
    # A class that JAX does not know yet may still be registered: only the others are remembered.
    known = _UNREGISTERED if kind in _UNSETTLED or cls in _DATA_TYPES else _KINDS
    known[cls] = kind
    return kind


_UNSETTLED = (Kind.STATIC, Kind.INSTANCE)


def _is_numeric(dtype: np.dtype) -> bool:
    """Returns whether JAX has such arrays; texts, dates, records and objects it has not."""
    return dtype.kind in "biufc" or (dtype.kind == "V" and dtype.type is not np.void)


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
    kind_of(value)
    return type(value) in _KINDS


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
    if cls in _DATA_TYPES:
        return Kind.ARRAY
    if is_tuple:
        return Kind.VALUE
    if issubclass(cls, tuple(NODE_TYPES)):
        return Kind.NODE
    if issubclass(cls, functools.partial):
        return Kind.BOUND
    return Kind.INSTANCE if _is_open(cls) else Kind.STATIC


def _is_open(cls: type) -> bool:
    """Returns whether data may be in the attributes of a class's instances."""
    if issubclass(cls, (type, enum.Enum, types.ModuleType, frozenset)):
        return False
    if str(cls.__module__).partition(".")[0] in _CLOSED:
        return False
    storage = storage_of(cls)
    has_attributes = storage.own is not None or bool(storage.slots)
    return has_attributes and (lists_fields(cls) or not _is_callable(cls))


def _is_callable(cls: type) -> bool:
    return any("__call__" in vars(base) for base in cls.__mro__)


_FIELDS = ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_validator__", "__fields__")


def lists_fields(cls: type) -> bool:
    """Returns whether a class says what its instances consist of."""
    return any(name in vars(base) for base in cls.__mro__ for name in _FIELDS)


def split_foreign(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Takes one level of a pytree registered with JAX apart: keys, children, treedef."""
    entries, treedef = jtu.tree_flatten_with_path(value, is_leaf=lambda x: x is not value)
    keys = tuple(key_of_entry(path[0]) if path else None for path, _ in entries)
    return keys, tuple(child for _, child in entries), treedef


def items_in(value: Any, kind: Kind) -> Iterable[tuple[Any, Any]]:
    """Returns what is directly inside a container that is no object, with keys."""
    if type(value) is list or type(value) is tuple:
        return enumerate(value)
    if type(value) is dict:
        return value.items()
    if kind is Kind.NODE or kind is Kind.INSTANCE:
        return node_type(type(value)).items(value)
    if kind is Kind.STATIC:  # a frozenset, a view of a dict, or an array of objects
        return enumerate(value.flat if isinstance(value, np.ndarray) else value)
    is_value = kind is Kind.VALUE or kind is Kind.BOUND
    keys, parts = value_type(type(value)).split(value) if is_value else split_foreign(value)[:2]
    return zip(keys, parts, strict=True)


def children_of(value: Any, kind: Kind) -> Iterable[Any]:
    """Returns what is directly inside a container that is no object."""
    return [child for _, child in items_in(value, kind)]


def bound_objects(function: Any) -> list[Any]:
    """Returns the objects that a method or partial is bound to, for its holder to keep as parts."""
    if kind_of(function) is not Kind.BOUND:
        return []
    found: list[Any] = []
    for part in value_type(type(function)).split(function)[1]:
        found.extend([part] if kind_of(part) is Kind.OBJECT else bound_objects(part))
    return found


# -- looking for data
class _Place(NamedTuple):
    """Something inside a value, and on what way it was met."""

    value: Any
    is_open: bool  # whether all that it is in can be looked into, so that arrays count
    key: Any
    around: _Place | None

    @property
    def path(self) -> Path:
        return () if self.around is None else (*self.around.path, self.key)


_LEAVES = (Kind.ARRAY, Kind.VARIABLE, Kind.OBJECT)
_MOST = 1000
"""How many values are looked at inside of instances that cannot be looked into by rule."""


def holds_data(value: Any) -> bool:
    """Returns whether arrays, Variables or objects are anywhere in a value.

    Inside of an instance that does not say what is in it only Variables and objects count.
    """
    kind = kind_of(value)
    if kind in _LEAVES:
        return True
    cls = type(value)
    if cls is list or cls is tuple or cls is dict:
        if _ATOMS.issuperset(map(type, value.values() if cls is dict else value)):
            return False
    return _may_hold(value, kind) and _search(value, _is_data) is not None


def holds_arrays(value: Any) -> bool:
    """Returns whether arrays are in a value that are in no Variable or object."""
    kind = kind_of(value)
    may_hold = kind is Kind.ARRAY or kind is Kind.BOUND or _may_hold(value, kind)
    return may_hold and _search(value, _is_array, callables=True) is not None


def path_to_data(value: Any) -> tuple[Path, Any]:
    """Finds what is hidden in a value, if need be an array alone: its path, and itself."""
    place = _search(value, _is_data) or _search(value, _is_leaf)
    return ((), value) if place is None else (place.path, place.value)


def _may_hold(value: Any, kind: Kind) -> bool:
    return is_closed(value) if kind is Kind.STATIC else kind is not Kind.BOUND


def is_closed(value: Any) -> bool:
    """Returns whether a static value may hold others, though it is not taken apart."""
    is_array = isinstance(value, np.ndarray)
    return value.dtype.hasobject if is_array else isinstance(value, CLOSED_TYPES)


def hides_data(value: Any) -> bool:
    """Returns whether arrays, Variables or objects are in an instance that is not looked into."""
    return not lists_fields(type(value)) and _search(value, _is_leaf) is not None


def _is_data(kind: Kind, is_open: bool) -> bool:
    return kind is Kind.VARIABLE or kind is Kind.OBJECT or (kind is Kind.ARRAY and is_open)


def _is_leaf(kind: Kind, is_open: bool) -> bool:
    return kind in _LEAVES


def _is_array(kind: Kind, is_open: bool) -> bool:
    return kind is Kind.ARRAY


def _search(
    value: Any, is_wanted: Callable[[Kind, bool], bool], *, callables: bool = False
) -> _Place | None:
    """Finds something in a value, what is near first; in methods and partials if so asked."""
    todo = deque([_Place(value, True, None, None)])
    seen: dict[int, Any] = {}  # alive, so that no address is used twice
    remaining = _MOST
    while todo:
        place = todo.popleft()
        value, is_open, _, _ = place
        kind = kind_of(value)
        if kind in _LEAVES:
            if is_wanted(kind, is_open):
                return place
            continue
        may_hold = callables if kind is Kind.BOUND else _may_hold(value, kind)
        if not may_hold or id(value) in seen:
            continue
        seen[id(value)] = value
        inside = items_in(value, kind)
        if kind is Kind.STATIC or (kind is Kind.INSTANCE and not _counts_arrays(type(value))):
            is_open = False
        if not is_open:
            inside = [*itertools.islice(inside, remaining)]
            remaining -= len(inside)
        todo.extend([_Place(x, is_open, key, place) for key, x in inside if type(x) not in _ATOMS])
    return None


def _counts_arrays(cls: type) -> bool:
    return lists_fields(cls) and not _is_callable(cls)
