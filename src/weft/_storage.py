"""Storage: the slots of objects and Variables, and how to make many of either at once.

The classes of storage have slots and nothing else, in particular no `__setattr__`, so Python fills
the slots of their instances fast. That is why what is made begins as such an instance, and gets its
own class when its slots are filled, or gives them to an instance of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from weft import _trace
from weft._types import NO_PLANS, Root


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
        "_lease",
        "_metadata",
        "_origin",
        "_root_plans",
        "_slot",
        "_trace",
        "_watches",
    )


set_attributes: Callable[[Any, dict[str, Any]], None] = ObjectStorage.__dict__["__dict__"].__set__
"""Gives an object the dict that holds its attributes."""

_ACCESS: dict[type, list[tuple[Callable[[Any], Any], Callable[[Any, Any], None]]]] = {
    storage: [
        (vars(storage)[name].__get__, vars(storage)[name].__set__)
        for name in storage.__slots__
        if not name.startswith("__")
    ]
    for storage in (ObjectStorage, VariableStorage)
}


def make_objects(
    kinds: Iterable[type], marks: Iterable[dict[Any, bool]], attributes: Iterable[dict[str, Any]]
) -> list[Any]:
    """Makes objects of the running trace with these marks, and these dicts as attributes."""
    trace = _trace.current()
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
            new = _copy_slots(new, object.__new__(kind))
            set_attributes(new, own)
        made.append(new)
    return made


def make_object(kind: type, marks: dict[Any, bool]) -> Any:
    """Makes an object of the running trace that has no attributes yet."""
    # Not with a dict as above: an object that fills its own shares the names with others.
    (bare,) = make_objects((ObjectStorage,), (marks,), ({},))
    return _copy_slots(bare, object.__new__(kind))


def make_variables(
    kinds: Iterable[type], raws: Iterable[Any], metadata: Iterable[dict[str, Any]]
) -> list[Any]:
    """Makes Variables of the running trace; a dict of metadata is never changed, but replaced."""
    trace = _trace.current()
    made: list[Any] = []
    for kind, raw, own in zip(kinds, raws, metadata, strict=True):
        new: Any = VariableStorage()
        new._slot = raw
        new._metadata = own
        new._trace = trace
        new._origin = None
        new._lease = None
        new._root_plans = NO_PLANS
        new._watches = None
        try:
            new.__class__ = kind
        except TypeError:  # instances of this class have attributes too
            new = _copy_slots(new, object.__new__(kind))
        made.append(new)
    return made


def fill_variable(variable: Any, raw: Any, metadata: dict[str, Any]) -> None:
    """Fills the slots of a new Variable of the running trace."""
    (bare,) = make_variables((VariableStorage,), (raw,), (metadata,))
    _copy_slots(bare, variable)


def _copy_slots(bare: Any, to: Any) -> Any:
    for get, put in _ACCESS[type(bare)]:
        put(to, get(bare))
    return to
