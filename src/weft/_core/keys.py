"""What stands in keys of static values for what is not compared by its parts."""

from __future__ import annotations

import copy
import mmap
import pathlib
import struct
import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

_SAMPLE = 1024


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

    def __repr__(self) -> str:
        value = self._get()
        if value is None:
            return "<gone>"
        code = getattr(value, "__code__", None)
        return repr(value) if code is None else f"{code.co_qualname} {place_of(code)}"


def _equal(a: Any, b: Any) -> bool:
    """Returns whether two values are equal as they see it; False where they cannot tell."""
    if type(a) is not type(b):
        return False
    try:
        return bool(a is b or a == b)
    except Exception:  # code of the user's, or of arrays, which have no single answer
        return False


class ByEquality:
    """Key of a value that is hashed and compared as it does itself."""

    __slots__ = ("_hash", "_value")

    def __init__(self, value: Any):
        self._value = value
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByEquality) and _equal(self._value, other._value)

    def __repr__(self) -> str:
        return repr(self._value)


class ByCopy:
    """Key of a value that cannot be hashed: a copy, compared with `==`."""

    __slots__ = ("_copy",)

    def __init__(self, value: Any):
        self._copy = copy.deepcopy(value)

    def matches(self, value: Any) -> bool:
        """Returns whether a value is still as it was copied."""
        return _equal(self._copy, value)

    def __hash__(self) -> int:
        return hash(type(self._copy))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ByCopy) and _equal(self._copy, other._copy))

    def __repr__(self) -> str:
        return repr(self._copy)


class ArrayKey:
    """Key of a NumPy array or scalar: dtype, shape and content.

    What may be written is copied. What may not, as the array and all that it is a view of are
    read-only, is taken to stay while that is so: then its content need not be looked at again.

    Args:
      array: the array.
      key_of: returns the key of one element, where these are objects.
    """

    __slots__ = ("__weakref__", "_content", "_dtype", "_fixed", "_hash", "_key_of", "_shape")

    def __init__(self, array: Any, key_of: Callable[[Any], Hashable]):
        self._dtype, self._shape, self._key_of = array.dtype, array.shape, key_of
        self._fixed = array if _is_fixed(array) else None
        content = self._read(array)
        sample: Any = content
        if type(content) is memoryview:
            sample = bytes(content[:_SAMPLE]), bytes(content[-_SAMPLE:])
            content = bytearray(content) if self._fixed is None else content
        self._content = content
        self._hash = hash((self._dtype, self._shape, sample))

    def _read(self, array: Any) -> Any:
        if self._dtype.hasobject:
            return tuple(map(self._key_of, np.asarray(array).ravel().tolist()))
        flat: Any = np.ascontiguousarray(array).reshape(-1)
        return memoryview(flat.view(np.uint8)) if flat.itemsize else memoryview(b"")

    def matches(self, array: Any) -> bool:
        """Returns whether an array is as this one was."""
        if array is self._fixed:
            return _is_fixed(array)
        if array.shape != self._shape or array.dtype != self._dtype:
            return False
        return _same_content(self._content, self._read(array))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, ArrayKey)
            and (self._hash, self._shape, self._dtype) == (other._hash, other._shape, other._dtype)
            and all(key._fixed is None or _is_fixed(key._fixed) for key in (self, other))
            and _same_content(self._content, other._content)
        )

    def __repr__(self) -> str:
        return f"array of {self._dtype}, shape {self._shape}"


def _same_content(a: Any, b: Any) -> bool:
    if type(a) is memoryview:
        a, b = b, a
    if type(a) is memoryview and type(b) is memoryview:  # which Python compares slowly
        return np.array_equal(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8))
    return a == b


def _is_fixed(array: Any) -> bool:
    if isinstance(array, np.generic):
        return not isinstance(array, np.void)
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    return array is None or isinstance(array, (bytes, mmap.mmap, jax.Array))


_latest: weakref.WeakValueDictionary[int, ArrayKey] = weakref.WeakValueDictionary()


def array_key(array: Any, key_of: Callable[[Any], Hashable]) -> ArrayKey:
    """Returns the key of an array: the one that it had before, if it did not change."""
    key = _latest.get(id(array))
    if key is None or not key.matches(array):
        key = _latest[id(array)] = ArrayKey(array, key_of)
    return key


_pack = struct.Struct("d").pack


def bits_of(value: float | complex) -> bytes:
    """Returns the bytes of a number: `0.0` and `-0.0` differ, and NaN equals itself."""
    return _pack(value.real) + _pack(value.imag) if isinstance(value, complex) else _pack(value)


def from_bits(kind: type, bits: Any) -> Any:
    """Returns the number of some bytes."""
    return kind(*struct.unpack(f"{len(bits) // 8}d", bits))


def place_of(code: types.CodeType) -> str:
    """Returns file and line of some code, in parentheses."""
    return f"({pathlib.PurePath(code.co_filename).name}:{code.co_firstlineno})"
