"""Instances: what Python keeps for an object, whatever its class says about it.

A class may override how its attributes are read and written, and what becomes of new instances:
`__getattr__` that makes up entries, mutators that count, an `__init__` with required arguments. The
*own attributes* of an instance, those in its `__dict__` and in slots, are read and written here
through the descriptors that Python itself made, and a *blank* instance is made without asking the
class.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from weft._core.path import sorted_keys


class Storage(NamedTuple):
    """Where the instances of a class keep their own attributes.

    Attributes:
      own: the descriptor of `__dict__`; None where instances have none.
      slots: the descriptors of slots, by name.
    """

    own: Any
    slots: dict[str, Any]


_storages: dict[type, Storage] = {}
_makers: dict[type, Callable[[type], Any]] = {}
_DICTS = (types.GetSetDescriptorType, types.MemberDescriptorType)


def storage_of(cls: type) -> Storage:
    """Returns where the instances of a class keep their own attributes."""
    found = _storages.get(cls)
    if found is None:
        found = _storages[cls] = _find_storage(cls)
    return found


def _find_storage(cls: type) -> Storage:
    own: Any = None
    slots: dict[str, Any] = {}
    for base in cls.__mro__:
        namespace = vars(base)
        inside = namespace.get("__dict__")
        if own is None and isinstance(inside, _DICTS):
            own = inside
        if "__slots__" in namespace:  # classes written in C have none
            for name, member in namespace.items():
                if isinstance(member, types.MemberDescriptorType) and name != "__dict__":
                    slots.setdefault(name, member)
    return Storage(own, slots)


def is_own_dict(x: Any) -> bool:
    """Returns whether a dict is its own `__dict__`, as in `self.__dict__ = self`."""
    own = storage_of(type(x)).own
    return own is not None and own.__get__(x) is x


def own_attributes(x: Any) -> list[tuple[str, Any]]:
    """Returns the attributes that an instance holds itself, sorted by name."""
    storage = storage_of(type(x))
    found: dict[str, Any] = {}
    for name, slot in storage.slots.items():
        try:
            found[name] = slot.__get__(x)
        except AttributeError:  # an empty slot
            continue
    if storage.own is not None:
        own = storage.own.__get__(x)
        if own is not x:
            found.update(dict.items(own))
    return [(name, found[name]) for name in sorted_keys(found)] if found else []


def set_own_attributes(x: Any, attributes: Iterable[tuple[str, Any]]) -> None:
    """Replaces all attributes that an instance holds itself."""
    storage = storage_of(type(x))
    new = dict(attributes)
    for name, slot in storage.slots.items():
        if name in new:
            slot.__set__(x, new.pop(name))
        else:
            try:
                slot.__delete__(x)
            except AttributeError:  # empty already
                continue
    if storage.own is not None:
        own = storage.own.__get__(x)
        if own is not x:
            dict.clear(own)
            dict.update(own, new)


def tie_to_own_dict(x: Any) -> None:
    """Makes a dict its own `__dict__`."""
    storage_of(type(x)).own.__set__(x, x)


def blank(cls: type) -> Any:
    """Makes an instance without calling `__new__` or `__init__` of a class written in Python."""
    make = _makers.get(cls)
    if make is None:
        make = _makers[cls] = _find_maker(cls)
    return make(cls)


def _find_maker(cls: type) -> Callable[[type], Any]:
    for base in cls.__mro__:
        make = vars(base).get("__new__")
        if isinstance(make, types.BuiltinMethodType):
            return make
    raise AssertionError("every class derives from object")
