"""Storage: the slots of objects and Variables, and how to make many of either at once.

The classes of storage have slots and nothing else, in particular no `__setattr__`, so Python fills
the slots of their instances fast. That is why many at once begin as such instances, and get their
own classes when their slots are filled. One alone is filled with what a bare one had.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from weft._core import trace as tracing
from weft._core.types import NO_PLANS, Root

V = TypeVar("V")


class ObjectStorage(Root):
    """What an object has besides attributes: its trace, its marks, what is remembered."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_pytree_is_open",
        "_pytree_marks",
        "_pytree_memory",
        "_pytree_trace",
        "_pytree_watches",
        "_root_plans",
    )


class VariableStorage(Root):
    """What a Variable has: its value in a slot, its metadata, its trace, what is remembered."""

    __slots__ = (
        "__weakref__",
        "_keeper",
        "_metadata",
        "_origin",
        "_root_plans",
        "_slot",
        "_trace",
        "_watches",
    )
    _keeper: Any
    _metadata: dict[str, Any]
    _origin: tuple[str, int] | None
    _root_plans: Any
    _slot: Any
    _trace: Any
    _watches: Any


attributes: Callable[[Any], dict[str, Any]] = ObjectStorage.__dict__["__dict__"].__get__
"""Returns the attributes of an object as the dict that holds them, and tells nobody."""

set_attributes: Callable[[Any, dict[str, Any]], None] = ObjectStorage.__dict__["__dict__"].__set__
"""Gives an object the dict that holds its attributes."""

_set_marks = vars(ObjectStorage)["_pytree_marks"].__set__
_set_object_trace = vars(ObjectStorage)["_pytree_trace"].__set__

# These bypass `__setattr__`, hooks and checks; nothing outside the library may use them.
_slots = vars(VariableStorage)
get_slot = _slots["_slot"].__get__
set_slot = _slots["_slot"].__set__
get_keeper = _slots["_keeper"].__get__
set_keeper = _slots["_keeper"].__set__
get_metadata = _slots["_metadata"].__get__
set_metadata_slot = _slots["_metadata"].__set__
get_trace = _slots["_trace"].__get__
set_trace = _slots["_trace"].__set__
set_origin = _slots["_origin"].__set__
set_watches = _slots["_watches"].__set__


def make_objects(
    kinds: Iterable[type], marks: Iterable[dict[Any, bool]], attributes: Iterable[dict[str, Any]]
) -> list[Any]:
    """Makes objects of the running trace with these marks, and these dicts as attributes."""
    trace = tracing.current()
    made: list[Any] = []
    for kind, own_marks, own in zip(kinds, marks, attributes, strict=True):
        new: Any = ObjectStorage()
        new._pytree_marks = own_marks
        new._pytree_trace = trace
        new._pytree_is_open = False
        new._pytree_memory = None
        new._pytree_watches = None
        new._root_plans = NO_PLANS
        new.__dict__ = own  # before the class, which is faster
        try:
            new.__class__ = kind
        except TypeError:  # instances of this class have more slots
            new = make_object(kind, own_marks)
            set_attributes(new, own)
        made.append(new)
    return made


def make_object(kind: type, marks: dict[Any, bool]) -> Any:
    """Makes an object of the running trace that has no attributes yet."""
    new = object.__new__(kind)
    fill_object(new, marks)
    return new


def fill_object(obj: Any, marks: dict[Any, bool]) -> None:
    """Fills the slots of a new object of the running trace."""
    for put, value in _object_defaults():
        put(obj, value)
    _set_marks(obj, marks)
    _set_object_trace(obj, tracing.current())


def ensure_filled(obj: Any) -> None:
    """Fills the slots of an object that `object.__new__` made, past its class."""
    try:
        obj._pytree_trace  # noqa: B018
    except AttributeError:
        fill_object(obj, type(obj)._pytree_class_marks)


def make_variables(
    kinds: Iterable[type], raws: Iterable[Any], metadata: Iterable[dict[str, Any]]
) -> list[Any]:
    """Makes Variables of the running trace; a dict of metadata is never changed, but replaced."""
    trace = tracing.current()
    made: list[Any] = []
    for kind, raw, own in zip(kinds, raws, metadata, strict=True):
        new: Any = VariableStorage()
        # A loop over a table of slots takes 2.6 times as long (320 µs for 1000 Variables, 120 so),
        # an `__init__` 1.5 times; `tests/variable/test_storage.py` holds that no slot is left out.
        new._slot = raw
        new._metadata = own
        new._trace = trace
        new._origin = None
        new._keeper = None
        new._root_plans = NO_PLANS
        new._watches = None
        try:
            new.__class__ = kind
        except TypeError:  # instances of this class have attributes too
            new = object.__new__(kind)
            fill_variable(new, raw, own)
        made.append(new)
    return made


def make(kind: type[V], raw: Any, metadata: dict[str, Any]) -> V:
    """Makes a Variable of the running trace without calling hooks or copying anything."""
    return make_variables((kind,), (raw,), (metadata,))[0]


def fill_variable(variable: Any, raw: Any, metadata: dict[str, Any]) -> None:
    """Fills the slots of a new Variable of the running trace."""
    for put, value in _variable_defaults():
        put(variable, value)
    set_slot(variable, raw)
    set_metadata_slot(variable, metadata)
    set_trace(variable, tracing.current())


Defaults = list[tuple[Callable[[Any, Any], None], Any]]


@functools.cache
def _object_defaults() -> Defaults:
    (bare,) = make_objects((ObjectStorage,), ({},), ({},))
    return _defaults(bare, {"_pytree_marks", "_pytree_trace"})


@functools.cache
def _variable_defaults() -> Defaults:
    (bare,) = make_variables((VariableStorage,), (None,), ({},))
    return _defaults(bare, {"_slot", "_metadata", "_trace"})


def _defaults(bare: Any, given: set[str]) -> Defaults:
    """Returns what is in the slots of a bare object, but for those that each gets by itself."""
    slots = vars(type(bare)).items()
    return [
        (slot.__set__, getattr(bare, name))
        for name, slot in slots
        if name in type(bare).__slots__ and not name.startswith("__") and name not in given
    ]
