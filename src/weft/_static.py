"""Static values and when two of them are the same.

A *static value* is everything that decides what is traced without being traced: a size, a flag,
an activation function, a config object. A *key* is an immutable stand-in for a static value, such
that two values with equal keys lead to the same traced program. `Static` is the box that compares
by that key and still hands out the very object it was given.

Keys are taken when a box is made, so that a config changed later is seen as another value and
never rewrites what a cache remembers.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import struct
import types
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import jax
import numpy as np


class ByIdentity:
    """Key of a value that equals only itself; holds it weakly where Python allows."""

    __slots__ = ("_get", "_id")

    def __init__(self, value: Any):
        self._id = id(value)
        try:
            self._get: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, ByIdentity) or self._id != other._id:
            return False
        value = self._get()  # a dead object's address may have been reused
        return value is not None and value is other._get()


_BY_IDENTITY: list[type] = [jax.Array]


def compare_by_identity(kind: type) -> None:
    """Declares that values of a type hold data: as static values they equal only themselves."""
    _BY_IDENTITY.append(kind)


class BySnapshot:
    """Key of an unhashable value without readable content: a copy, compared with `==`."""

    __slots__ = ("_copy",)

    def __init__(self, value: Any):
        self._copy = copy.deepcopy(value)

    def __hash__(self) -> int:
        return hash(type(self._copy))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BySnapshot) and bool(self._copy == other._copy)


def key_of(value: Any) -> Hashable:
    """Returns the key of a static value.

    Values compare by type and content, recursively: `1`, `True` and `1.0` differ, as do `0.0` and
    `-0.0`, while NaN equals itself. Functions compare by code, defaults and closure, so that
    `optax.adam(1e-3)` made twice is equal. What holds data (arrays, Variables, objects) equals only
    itself. Other objects compare by `==` where they can be hashed.

    Args:
      value: any Python object.

    Returns:
      A hashable, immutable key.
    """
    return _key(value, {})


def _key(value: Any, active: dict[int, int]) -> Hashable:
    kind = type(value)
    if kind in _ATOMS:
        return (kind, value)
    if id(value) in active:  # a function that closes over itself, a dict that holds itself
        return ("cycle", active[id(value)])
    rule = _RULES.get(kind)
    active[id(value)] = len(active)
    try:
        if rule is not None:
            return rule(value, active)
        return _key_of_object(value, active)
    finally:
        del active[id(value)]


def _key_of_float(value: float, active: dict[int, int]) -> Hashable:
    return (float, struct.pack("d", value))


def _key_of_complex(value: complex, active: dict[int, int]) -> Hashable:
    return (complex, struct.pack("dd", value.real, value.imag))


def _key_of_sequence(value: Any, active: dict[int, int]) -> Hashable:
    return (type(value), *(_key(item, active) for item in value))


def _key_of_mapping(value: Any, active: dict[int, int]) -> Hashable:
    # Order counts: code that iterates over the mapping traces another program.
    return (type(value), *((_key(k, active), _key(v, active)) for k, v in value.items()))


def _key_of_set(value: Any, active: dict[int, int]) -> Hashable:
    return (type(value), frozenset(_key(item, active) for item in value))


def _key_of_numpy(value: Any, active: dict[int, int]) -> Hashable:
    if value.dtype.hasobject:
        return (type(value), value.shape, *(_key(item, active) for item in value.ravel().tolist()))
    return (type(value), str(value.dtype), value.shape, value.tobytes())


def _key_of_partial(value: functools.partial, active: dict[int, int]) -> Hashable:
    parts = (value.func, value.args, value.keywords)
    return (type(value), *(_key(part, active) for part in parts))


def _key_of_method(value: types.MethodType, active: dict[int, int]) -> Hashable:
    return (types.MethodType, _key(value.__func__, active), _key(value.__self__, active))


def _key_of_cell(cell: types.CellType, active: dict[int, int]) -> Hashable:
    try:
        return (_key(cell.cell_contents, active),)
    except ValueError:  # the cell is still empty
        return ()


def _key_of_function(value: types.FunctionType, active: dict[int, int]) -> Hashable:
    return (
        types.FunctionType,
        value.__code__,
        ByIdentity(value.__globals__),
        _key(value.__defaults__, active),
        _key(value.__kwdefaults__, active),
        *(_key_of_cell(cell, active) for cell in value.__closure__ or ()),
    )


def _key_of_object(value: Any, active: dict[int, int]) -> Hashable:
    kind = type(value)
    if isinstance(value, tuple(_BY_IDENTITY)):
        return ByIdentity(value)
    if isinstance(value, np.generic):
        return _key_of_numpy(value, active)
    # A subclass that is no dataclass itself may have attributes that its fields do not tell of.
    parameters = vars(kind).get("__dataclass_params__")
    if parameters is not None and parameters.eq:
        fields = (getattr(value, f.name, None) for f in dataclasses.fields(value))
        return (kind, *(_key(field, active) for field in fields))
    if isinstance(value, tuple):
        return _key_of_sequence(value, active)
    if kind.__hash__ is object.__hash__ and kind.__eq__ is object.__eq__:
        return ByIdentity(value)
    try:
        hash(value)
    except TypeError:
        return _key_of_unhashable(value, active)
    return (kind, value)


def _key_of_unhashable(value: Any, active: dict[int, int]) -> Hashable:
    own = getattr(value, "__dict__", None)
    attributes = _key(own, active) if isinstance(own, dict) else None
    for base, rule in ((dict, _key_of_mapping), (list, _key_of_sequence), (set, _key_of_set)):
        if isinstance(value, base):
            return (rule(value, active), attributes)
    if attributes is not None:
        return (type(value), attributes)
    try:
        return BySnapshot(value)
    except TypeError:
        return ByIdentity(value)


_ATOMS = frozenset({type(None), bool, int, str, bytes, type, type(...)})
"""Types whose values are fixed, and equal to another of the same type only if nothing differs."""

_RULES: dict[type, Callable[[Any, dict[int, int]], Hashable]] = {
    float: _key_of_float,
    complex: _key_of_complex,
    tuple: _key_of_sequence,
    list: _key_of_sequence,
    dict: _key_of_mapping,
    set: _key_of_set,
    frozenset: _key_of_set,
    np.ndarray: _key_of_numpy,
    functools.partial: _key_of_partial,
    types.MethodType: _key_of_method,
    types.FunctionType: _key_of_function,
}


@jax.tree_util.register_static
class Static:
    """A static value in a box that compares by the value's key.

    The box is a JAX pytree without leaves, so it may ride along inside any pytree.

    Example:
      >>> import weft as nnx
      >>> nnx.graphlib.Static({"sizes": [1, 2]}) == nnx.graphlib.Static({"sizes": [1, 2]})
      True
      >>> nnx.graphlib.Static(1) == nnx.graphlib.Static(True)
      False
    """

    __slots__ = ("_hash", "key", "value")
    __class_getitem__ = classmethod(types.GenericAlias)  # as an annotation: `Static[int]`

    def __init__(self, value: Any):
        self.value = value
        self.key = key_of(value)
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.key)
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Static and self.key == other.key)

    def __reduce__(self) -> Any:  # keys and hashes hold for this process only
        return (Static, (self.value,))

    def __repr__(self) -> str:
        return f"Static({self.value!r})"


def are_atoms(values: Iterable[Any]) -> bool:
    """Returns whether all values are of types whose values `==` tells apart as keys do."""
    return _ATOMS.issuperset(map(type, values))


_MOST = 4096
_boxes: dict[Hashable, Static] = {}


def boxed(value: Any) -> Static:
    """Returns a value in a box; for common values that of an earlier call, which is faster.

    Code and default values of functions are taken to stay as they are.
    """
    kind = type(value)
    if kind is tuple:
        key: Hashable = (kind, value, *map(type, value)) if are_atoms(value) else None
    elif kind in _ATOMS or kind is types.FunctionType or (kind is float and value):
        key = (kind, value)  # not for zeros: they have signs
    else:
        key = None
    if key is None:
        return Static(value)
    box = _boxes.get(key)
    if box is None:
        box = Static(value)
        if kind is not types.FunctionType or _stays(value):
            if len(_boxes) >= _MOST:
                _boxes.clear()
            _boxes[key] = box
    return box


def _stays(function: types.FunctionType) -> bool:
    """Returns whether a function has no closure, and no default value that may change."""
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    fixed = _ATOMS | {float, types.FunctionType}
    return function.__closure__ is None and all(type(x) in fixed for x in defaults)


def clear() -> None:
    """Forgets the boxes of common values."""
    _boxes.clear()
