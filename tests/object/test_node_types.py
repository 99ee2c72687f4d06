"""Containers: read, made and refilled past what a subclass overrides."""

from __future__ import annotations

import collections
import functools
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from tests.laws.attribute_values import (
    AttrDict,
    Chain,
    Default,
    Locked,
    Names,
    Ordered,
    OwnDict,
    Pair,
    Pydantic,
    Recent,
    Sized,
    Space,
    Stats,
    Tracked,
    Twins,
    contents,
)
from weft._core.path import Own
from weft._object.node_types import (
    NODE_TYPES,
    make_node,
    node_type,
    refill,
    value_type,
)

# value, what is in it, what else it is made from
NODES: dict[str, tuple[Any, Any, Any]] = {
    "list": ([5], [(0, 5)], None),
    "dict": ({"b": 1, "a": 2}, [("b", 1), ("a", 2)], None),
    "set": ({5}, [("elements", frozenset({5}))], None),
    "OrderedDict": (collections.OrderedDict(b=1), [("b", 1)], None),
    "defaultdict": (collections.defaultdict(list, a=1), [("a", 1)], list),
    "deque": (collections.deque([5], 3), [(0, 5)], 3),
    "namespace": (types.SimpleNamespace(b=1, a=2), [("a", 2), ("b", 1)], None),
    "UserList": (collections.UserList([5]), [("data", [5])], None),
    "Counter": (collections.Counter("a"), [("a", 1)], None),
    "AttrDict": (AttrDict(a=1), [("a", 1)], None),
    "OwnDict": (OwnDict(a=1), [("a", 1)], (None, True)),
    "Tracked": (Tracked("me", a=1), [("a", 1), (Own("tracker"), "me")], None),
    "Locked": (Locked({"a": 1}, "why"), [("a", 1), (Own("reason"), "why")], None),
    "Ordered": (Ordered(b=1, a=2), [("b", 1), ("a", 2)], None),
    "Default": (Default(a=1), [("a", 1), (Own("label"), "x")], (list, False)),
    "Chain": (Chain("c", [5]), [(0, 5), (Own("changes"), 0), (Own("label"), "c")], None),
    "Names": (Names({"A"}), [("elements", frozenset({"A"}))], None),
    "Recent": (Recent([5], 3), [(0, 5), (Own("label"), "r")], (3, False)),
    "Space": (Space(a=1), [("a", 1)], None),
    "dataclass": (Stats(1), [("mean", 1), ("name", "stats")], None),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes(name: str) -> None:
    value, items, extra = NODES[name]
    handler = node_type(type(value))
    assert node_type(type(value)) is handler
    assert handler.items(value) == items
    assert handler.extra(value) == extra
    before = contents(value)
    twin = make_node(type(value), items, extra)
    assert type(twin) is type(value)
    assert contents(twin) == before
    refill(value, items)
    assert contents(value) == before
    refill(twin, [])
    assert handler.items(twin) in ([], [("elements", frozenset())])
    assert handler.extra(twin) == extra


def test_attributes_that_are_gone() -> None:
    chain = Chain("c", [5])
    refill(chain, [(0, 6), (Own("label"), "d")])
    assert list.__getitem__(chain, 0) == 6
    assert vars(chain) == {"label": "d"}


def test_the_nearest_base_counts() -> None:
    assert list(NODE_TYPES).index(collections.defaultdict) < list(NODE_TYPES).index(dict)
    pydantic = Pydantic(a=1)
    found = dict(node_type(Pydantic).items(pydantic))
    assert found == {"__pydantic_fields_set__": {"a"}, "a": 1}


def function(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


class Marked(functools.partial):
    pass


def marked() -> Marked:
    new = Marked(function, 1, b=2)
    new.label = "x"  # type: ignore[attr-defined]
    return new


def labelled() -> Any:
    new = functools.partial(function, 1)
    new.label = "x"  # type: ignore[attr-defined]
    return new


VALUES: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "tuple": (lambda: (5, 6), (0, 1), (5, 6)),
    "named tuple": (lambda: Pair(5, 6), ("left", "right"), (5, 6)),
    "Twins": (lambda: Twins(5), ("left", "right"), (5, 5)),
    "Sized": (lambda: Sized(5, unit="m"), (0, Own("unit")), (5, "m")),
    "mappingproxy": (lambda: types.MappingProxyType({"b": 5, "a": 6}), ("b", "a"), (5, 6)),
    "partial": (
        lambda: functools.partial(function, 1, b=2),
        ("func", 0, "b"),
        (function, 1, 2),
    ),
    "partial with an attribute": (labelled, ("func", 0, Own("label")), (function, 1, "x")),
    "own partial": (marked, ("func", 0, "b", Own("label")), (function, 1, 2, "x")),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    make, keys, parts = VALUES[name]
    value = make()
    how = value_type(type(value))
    assert how.split(value) == (keys, parts)
    twin = how.join(type(value), keys, parts)
    assert type(twin) is type(value)
    assert contents(twin) == contents(value)
    assert how.split(twin) == (keys, parts)


def test_bound_methods() -> None:
    method = Stats(1).__eq__
    how = value_type(types.MethodType)
    assert how.split(method) == (("__func__", "__self__"), (Stats.__eq__, Stats(1)))
    assert how.join(types.MethodType, *how.split(method)) == method


def test_splitting_a_partial_leaves_it_as_it_is() -> None:
    partial = functools.partial(function, 1)
    value_type(functools.partial).split(partial)
    assert functools.partial(partial, 2).func is function  # not so once it has a `__dict__`


def test_a_tuple_of_c_is_split() -> None:
    assert value_type(time.struct_time).split(time.gmtime(0))[1][0] == 1970
