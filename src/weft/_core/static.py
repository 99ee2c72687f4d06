"""Static values and when two of them are the same.

A *static value* is everything that decides what is traced without being traced: a size, a flag,
an activation function, a config object. A *key* is an immutable stand-in for a static value, such
that two values with equal keys lead to the same traced program. `Static` is the box that compares
by that key and still hands out the very object it was given.

Keys are taken when a box is made, so that a config changed later is seen as another value and
never rewrites what a cache remembers. With the key the box notes all in the value that may change
in place: what has to be looked at to know whether the key is still right.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from weft._core.caches import forgets
from weft._core.keys import ArrayKey, ByCopy, ByEquality, ByIdentity, array_key, bits_of
from weft._core.makeup import (
    ATOMS,
    ELEMENTS,
    LIBRARIES,
    Aspect,
    Compare,
    Makeup,
    makeup_of,
    package_of,
)

_MOST_PARTS = 10_000
_BYTES_OF_PART = 256
"""How much inside of objects that equal only themselves is looked at, in one value.

The rest of such an object is taken to stay: a dataset, a tokenizer or a replay buffer would have to
be compared on each call.
"""


class PartsKey(NamedTuple):
    """Key of a value by what it is made of.

    Attributes:
      kind: its type.
      head: what decides besides its parts.
      aspects: for each aspect of the type's makeup the keys of its parts: in order, in pairs with
        the keys of their names, or as a set where there is no order.
    """

    kind: type
    head: Hashable
    aspects: tuple[Hashable, ...]
    tag: str = "parts"


class Cycle(NamedTuple):
    """Key of what is an outer value again: how many levels further out."""

    levels: int
    tag: str = "cycle"


class Watched(NamedTuple):
    """What may change in place: an aspect of a value, or a value and the key that it had."""

    how: Aspect | ArrayKey | ByCopy
    value: Any


_OPAQUE = Makeup(Compare.OWN)


class _TooMuchError(Exception):
    """Ends the look into an object that holds more than can be compared on each call."""


_first_seen: weakref.WeakKeyDictionary[Any, PartsKey] = weakref.WeakKeyDictionary()
"""Keys of functions that libraries made."""


class _Look:
    """One look into a static value, which makes its key.

    Args:
      alike: whether functions compare by code, defaults and closure, whoever made them.
      as_jax: whether objects compare by their `==` or identity alone.
      around: the values around what is looked at, by `id` with their level.

    Attributes:
      watched: what may change in place, in the order in which it was met.
      lowest: the level of the outermost value that was met again inside of itself.
    """

    __slots__ = ("_active", "_alike", "_as_jax", "_is_within", "_left", "_met", "lowest", "watched")

    def __init__(
        self, alike: bool = False, as_jax: bool = False, around: dict[int, int] | None = None
    ):
        self.watched: list[Watched] = []
        self.lowest = sys.maxsize
        self._alike = alike
        self._as_jax = as_jax
        self._active: dict[int, int] = {} if around is None else around
        self._met: set[int] | None = None  # objects that equal only themselves
        self._is_within = False  # one of these
        self._left = _MOST_PARTS

    def key(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in ATOMS:
            return (kind, value)
        active = self._active
        level = active.get(id(value))
        if level is not None:  # a dict that holds itself
            self.lowest = min(self.lowest, level)
            return Cycle(len(active) - level)
        makeup = makeup_of(kind)
        active[id(value)] = len(active)
        try:
            return _KEYS[makeup.compare](self, value, makeup)
        finally:
            del active[id(value)]

    def _parts(self, value: Any, makeup: Makeup, head: Hashable = None) -> PartsKey:
        aspects = tuple([self._aspect(value, aspect) for aspect in makeup.aspects])
        return PartsKey(type(value), head, aspects)

    def _aspect(self, value: Any, aspect: Aspect) -> Hashable:
        if aspect.changes:
            self.watched.append(Watched(aspect, value))
        parts = list(aspect.values(value))
        if self._is_within:
            self._count(len(parts))
        keys = self._keys(parts)
        if aspect.names is not None:
            return tuple(zip(self._keys(aspect.names(value)), keys, strict=True))
        return tuple(keys) if aspect.is_ordered else frozenset(keys)

    def _count(self, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            raise _TooMuchError

    def _keys(self, values: Iterable[Any]) -> list[Hashable]:
        return [(kind, x) if (kind := type(x)) in ATOMS else self.key(x) for x in values]

    def _atom(self, value: Any, makeup: Makeup) -> Hashable:
        return (type(value), value)

    def _bits(self, value: Any, makeup: Makeup) -> Hashable:
        bits = bits_of(value)
        return self._parts(value, makeup, bits) if makeup.aspects else (type(value), bits)

    def _own(self, value: Any, makeup: Makeup) -> Hashable:
        try:
            head = ByEquality(value)
        except Exception:  # what its hash needs cannot be hashed
            return self._copy(value, makeup)
        return self._parts(value, _OPAQUE if self._as_jax else makeup, head)

    def _copy(self, value: Any, makeup: Makeup) -> Hashable:
        try:
            head = ByCopy(value)
        except Exception:  # copying runs code of the user's
            return self._identity(value, makeup)
        self.watched.append(Watched(head, value))
        return self._parts(value, makeup, head)

    def _identity(self, value: Any, makeup: Makeup) -> Hashable:
        head = ByIdentity(value)
        if self._as_jax or not makeup.aspects:
            return head
        met = self._met = set() if self._met is None else self._met
        if id(value) in met:
            return head
        met.add(id(value))
        if self._is_within:
            return self._parts(value, makeup, head)
        before = len(self.watched)
        self._is_within = True
        try:
            return self._parts(value, makeup, head)
        except (_TooMuchError, RuntimeError):  # also: too deep, or changed by another thread
            del self.watched[before:]
            return head
        finally:
            self._is_within = False

    def _array(self, value: Any, makeup: Makeup) -> Hashable:
        if self._is_within:
            self._count(value.nbytes // _BYTES_OF_PART)
        if value.dtype.kind == "O":
            head = (value.dtype, value.shape)
            makeup = makeup._replace(aspects=(ELEMENTS, *makeup.aspects))
        else:
            head = array_key(value, key_of)
            if not isinstance(value, np.generic) or isinstance(value, np.void):
                self.watched.append(Watched(head, value))
        return self._parts(value, makeup, head)

    def _function(self, value: types.FunctionType, makeup: Makeup) -> Hashable:
        if self._alike:
            return self._parts(value, makeup, (value.__code__, ByIdentity(value.__globals__)))
        module = value.__globals__.get("__name__")
        if package_of(module) not in LIBRARIES:
            return ByIdentity(value)
        key = _first_seen.get(value)
        if key is None:
            # What is noticed later does not count: the function may bind its variables anew.
            look = _Look(around=self._active)
            key = look._parts(value, makeup, (value.__code__, module))
            if look.lowest >= len(self._active) - 1:  # nothing around it is a part of the key
                _first_seen[value] = key
            self.lowest = min(self.lowest, look.lowest)
        return key


_KEYS: dict[Compare, Callable[[_Look, Any, Makeup], Hashable]] = {
    Compare.ATOM: _Look._atom,
    Compare.BITS: _Look._bits,
    Compare.PARTS: _Look._parts,
    Compare.OWN: _Look._own,
    Compare.IDENTITY: _Look._identity,
    Compare.COPY: _Look._copy,
    Compare.ARRAY: _Look._array,
    Compare.FUNCTION: _Look._function,
}


def key_of(value: Any, *, alike: bool = False) -> Hashable:
    """Returns the key of a static value.

    Values compare by type and content, recursively: `1`, `True` and `1.0` differ, as do `0.0` and
    `-0.0`, while NaN equals itself. Functions equal only themselves, but for those that JAX, Optax
    and Weft made: these compare by code, defaults and closure, as they were when first seen, so
    that `optax.adam(1e-3)` made twice is equal. What holds data (arrays, Variables, objects)
    equals only itself. Other objects compare by `==` where they define it, else by identity; their
    attributes count as well, so that a change of these is seen.

    Args:
      value: any Python object.
      alike: whether all functions compare by code, defaults and closure, as they are now.

    Returns:
      A hashable, immutable key.
    """
    return _Look(alike).key(value)


@jax.tree_util.register_static
class Static:
    """A static value in a box that compares by the value's key.

    The box is a JAX pytree without leaves, so it may ride along inside any pytree.

    Args:
      value: the value.
      alike: whether functions in it compare by code, defaults and closure, as they are now.
      as_jax: whether objects in it compare by their `==` or identity alone, whatever changes in
        them, as JAX compares static arguments: `self` may be one, and is another at each call.

    Attributes:
      value: the value.
      key: its key, when the box was made.
      watched: what may change in it in place.

    Example:
      >>> import weft as nnx
      >>> nnx.graphlib.Static({"sizes": [1, 2]}) == nnx.graphlib.Static({"sizes": [1, 2]})
      True
      >>> nnx.graphlib.Static(1) == nnx.graphlib.Static(True)
      False
    """

    __slots__ = ("__weakref__", "_hash", "key", "value", "watched")
    __class_getitem__ = classmethod(types.GenericAlias)  # as an annotation: `Static[int]`

    def __init__(self, value: Any, *, alike: bool = False, as_jax: bool = False):
        self.value = value
        self._hash: int | None = None
        kind = type(value)
        if kind in ATOMS:
            self.key: Hashable = (kind, value)
            self.watched: Sequence[Watched] = ()
            return
        look = _Look(alike, as_jax)
        self.key = look.key(value)
        self.watched = look.watched

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


def static_argument(value: Any) -> Static:
    """Puts a static argument of a call into a box."""
    return Static(value, as_jax=True)


def are_atoms(values: Iterable[Any]) -> bool:
    """Returns whether all values are of types whose values `==` tells apart as keys do."""
    return ATOMS.issuperset(map(type, values))


_MOST = 4096
_boxes: dict[Hashable, Static] = {}
_boxes_in_use: weakref.WeakValueDictionary[int, Static] = weakref.WeakValueDictionary()
"""Boxes of functions and classes, which are not to be kept alive by them."""


def boxed(value: Any) -> Static:
    """Returns a value in a box; for common values that of an earlier call, which is faster.

    What has a box of its own each time may hold what is not to be kept alive.
    """
    kind = type(value)
    if kind is types.FunctionType or kind is type:
        box = _boxes_in_use.get(id(value))
        if box is None or box.value is not value:
            box = Static(value)
            if kind is type or _holds_nothing(value):
                _boxes_in_use[id(value)] = box
        return box
    if kind is tuple:
        key: Hashable = (kind, value, *map(type, value)) if are_atoms(value) else None
    elif kind in ATOMS or (kind is float and value):
        key = (kind, value)  # not for zeros: they have signs
    else:
        key = None
    if key is None:
        return Static(value)
    box = _boxes.get(key)
    if box is None:
        if len(_boxes) >= _MOST:
            _boxes.clear()
        box = _boxes[key] = Static(value)
    return box


def _holds_nothing(function: types.FunctionType) -> bool:
    """Returns whether a function has neither a closure nor default values but numbers and texts."""
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return function.__closure__ is None and all(
        type(x) in ATOMS or type(x) is float for x in defaults
    )


@forgets
def clear() -> None:
    """Forgets the boxes of common values."""
    _boxes.clear()
    _boxes_in_use.clear()
