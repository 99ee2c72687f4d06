"""Instances: own attributes and blank ones, whatever a class overrides."""

from __future__ import annotations

import collections
import functools
import types
from typing import Any

import pytest

from weft._object.instances import (
    blank,
    is_own_dict,
    own_attributes,
    set_own_attributes,
    storage_of,
    tie_to_own_dict,
)


class Strict:
    """Needs an argument, makes up attributes and lets none be set."""

    def __new__(cls, needed: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, needed: Any):
        vars(self)["needed"] = needed

    def __getattr__(self, name: str) -> Any:
        return f"made up {name}"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("strict")


class Slots:
    __slots__ = ("__private", "b")

    def __init__(self) -> None:
        self.__private = 1


class More(Slots):
    __slots__ = ("__dict__", "__weakref__", "c")


class Base:
    pass


class Hidden(Base):
    """Shows another dict than it has."""

    def __init__(self) -> None:
        object.__setattr__(self, "real", 1)

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return {"shown": 2}


class OwnDict(dict):
    def __init__(self, **items: Any):
        super().__init__(items)
        self.__dict__ = self


def more() -> More:
    new = More()
    new.b, new.c, new.d = 2, 3, 4  # type: ignore[attr-defined]
    return new


ATTRIBUTES: dict[str, tuple[Any, list[tuple[str, Any]]]] = {
    "nothing": (object(), []),
    "dict": ({"a": 1}, []),
    "strict": (Strict(1), [("needed", 1)]),
    "slots": (Slots(), [("_Slots__private", 1)]),
    "slots and dict": (more(), [("_Slots__private", 1), ("b", 2), ("c", 3), ("d", 4)]),
    "hidden": (Hidden(), [("real", 1)]),
    "namespace": (types.SimpleNamespace(b=1, a=2), [("a", 2), ("b", 1)]),
    "own dict": (OwnDict(a=1), []),
    "UserDict": (collections.UserDict(a=1), [("data", {"a": 1})]),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_own_attributes(name: str) -> None:
    value, expected = ATTRIBUTES[name]
    assert own_attributes(value) == expected
    new = blank(type(value))
    assert type(new) is type(value)
    assert own_attributes(new) == []
    set_own_attributes(new, expected)
    assert own_attributes(new) == expected
    set_own_attributes(new, expected[1:])
    assert own_attributes(new) == expected[1:]


def test_where_attributes_are() -> None:
    assert storage_of(object) == (None, {})
    assert storage_of(functools.partial).slots == {}  # those of C are no attributes
    assert storage_of(More).own is not None
    assert storage_of(More).slots.keys() == {"_Slots__private", "b", "c"}
    assert storage_of(Slots) is storage_of(Slots)


def test_a_dict_that_is_its_own_attributes() -> None:
    assert is_own_dict(OwnDict(a=1))
    assert not is_own_dict({}) and not is_own_dict(Slots())
    new = blank(OwnDict)
    assert not is_own_dict(new)
    tie_to_own_dict(new)
    assert is_own_dict(new)
    new["a"] = 1
    assert new.a == 1


@pytest.mark.parametrize(
    "kind",
    [
        *(dict, list, set, tuple, object, collections.OrderedDict, collections.Counter),
        *(collections.defaultdict, collections.deque, types.SimpleNamespace, Strict),
    ],
)
def test_blank_ones(kind: type) -> None:
    class Sub(kind):  # type: ignore[misc]
        def __new__(cls, *needed: Any) -> Any:
            raise AssertionError("not called")

        def __init__(self, needed: Any):
            raise AssertionError("not called")

    for cls in (kind, Sub):
        assert type(blank(cls)) is cls
