"""Watching calls of methods without changing the classes that users wrote.

An *observed* object is, for the time of a `with` block, an instance of a subclass of its own class
whose methods call the *observers* instead. An observer stands around a call: it is given the
method, calls it, and returns what the caller gets.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from weft._module.module import Module
from weft._object.pytree import Pytree

Observer = Callable[[Any, str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""`observer(object, name, method, args, kwargs)` returns what `method(*args, **kwargs)` returns."""


class _Active(threading.local):
    def __init__(self) -> None:
        self.observers: tuple[Observer, ...] = ()


_active = _Active()
_OBSERVED: dict[type, type] = {}
_NOT_CALLS = (property, staticmethod, classmethod, type)


def _method_names(cls: type) -> list[str]:
    """Lists the public methods that a class adds to those of every Module, and `__call__`."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in (Module, Pytree, object) or not issubclass(base, Pytree):
            continue
        for name, value in vars(base).items():
            found.setdefault(name, value)
    return [
        name
        for name, value in found.items()
        if (name == "__call__" or not name.startswith("_"))
        and (callable(value) or isinstance(value, functools.partialmethod))
        and not isinstance(value, _NOT_CALLS)
    ]


def _observed_method(name: str, cls: type) -> Callable[..., Any]:
    @functools.wraps(getattr(cls, name), updated=())
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = getattr(super(_OBSERVED[cls], self), name)
        for observer in _active.observers:
            call = _around(observer, self, name, call)
        return call(*args, **kwargs)

    return method


def _around(
    observer: Observer, obj: Any, name: str, call: Callable[..., Any]
) -> Callable[..., Any]:
    return lambda *args, **kwargs: observer(obj, name, call, args, kwargs)


def _observed_class(cls: type) -> type:
    # Kept for good, as JAX keeps every class that is registered as a pytree.
    if cls not in _OBSERVED:
        namespace: dict[str, Any] = {
            name: _observed_method(name, cls) for name in _method_names(cls)
        }
        namespace |= {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__}
        namespace["__qualname__"] = cls.__qualname__
        options = {} if cls._pytree_is_pytree else {"pytree": False}
        _OBSERVED[cls] = type(cls)(cls.__name__, (cls,), namespace, **options)
    return _OBSERVED[cls]


def original_class(cls: type) -> type:
    """Returns the class that the user wrote, of an object that may be observed."""
    return cls.__mro__[1] if _OBSERVED.get(cls.__mro__[1]) is cls else cls


@contextlib.contextmanager
def observing(objects: Iterable[Pytree], observer: Observer) -> Iterator[None]:
    """Puts an observer around calls of the methods of some objects, in this thread."""
    changed = [x for x in objects if original_class(type(x)) is type(x)]
    before = _active.observers
    try:
        for x in changed:
            object.__setattr__(x, "__class__", _observed_class(type(x)))
        _active.observers = (*before, observer)
        yield
    finally:
        _active.observers = before
        for x in changed:
            object.__setattr__(x, "__class__", original_class(type(x)))
