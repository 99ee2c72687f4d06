"""Prefixes: what a transform is told about leaves, and where it does not fit."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from tests.graph.graphs import Box
from weft._graph import prefix as prefixes
from weft._graph.walk import Flattener


class Axes(prefixes.FilteredPrefix):
    pass


def spread(value: Any, prefix: Any) -> list[tuple[Any, Any]]:
    """The prefix that each leaf gets."""
    flattener = Flattener()
    flattener.flatten(value, ("x",), prefix)
    return [(entry.path[1:], entry.prefix) for entry in flattener.entries]


def model() -> Box:
    return Box(w=nnx.Param(1.0), s=[nnx.BatchStat(1.0), jnp.ones(1)], child=Box(w=nnx.Param(2.0)))


def test_a_leaf_holds_for_all_below() -> None:
    assert {prefix for _, prefix in spread(model(), 3)} == {3}
    assert {prefix for _, prefix in spread(model(), None)} == {None}


def test_trees_descend() -> None:
    assert spread(model(), {"w": 0, "s": (1, 2), "child": None}) == [
        (("child", "w"), None),
        (("s", 0), 1),
        (("s", 1), 2),
        (("w",), 0),
    ]
    assert spread([model(), jnp.ones(1)], [5, 6])[-1] == ((1,), 6)
    of_objects = Box(w=0, s=[1, 2], child=Box(w=3))
    assert [prefix for _, prefix in spread(model(), of_objects)] == [3, 1, 2, 0]


def test_static_values_need_no_entry() -> None:
    box = Box(a=1, b="x", c=None, w=nnx.Param(1.0))
    assert spread(box, {"w": 0}) == [(("w",), 0)]


def test_filters_decide_by_the_path_below_the_object() -> None:
    axes = Axes({nnx.PathContains("child"): 0, nnx.Variable: 1, ...: None})
    assert spread([model()], axes) == [
        ((0, "child", "w"), 0),
        ((0, "s", 0), 1),
        ((0, "s", 1), None),
        ((0, "w"), 1),
    ]
    seen = []

    class Look(prefixes.PrefixMapping):
        def map_prefix(self, path: Any, variable: Any) -> Any:
            seen.append(path)

    spread({"outer": model()}, Look())
    assert seen == [("child", "w"), ("s", 0), ("s", 1), ("w",)]


def test_filters_of_what_is_no_object() -> None:
    axes = Axes([(nnx.Param, 0), (..., 1)])
    assert spread([nnx.Param(1.0), jnp.ones(1)], axes) == [((0,), 0), ((1,), 1)]


def test_filters_inside_trees() -> None:
    axes = Axes({nnx.Param: 0, ...: None})
    found = spread(model(), {"w": 5, "s": axes, "child": axes})
    assert [prefix for _, prefix in found] == [0, None, None, 5]


def test_a_filter_that_is_missing() -> None:
    axes = Axes({nnx.BatchStat: 0})
    found = re.escape(
        "no filter of Axes({BatchStat: 0}) matches child.w, a Param: add a last entry for the "
        "rest, `Axes({..., ...: None})`"
    )
    with pytest.raises(nnx.PrefixError, match=found):
        spread(model(), axes)
    with pytest.raises(nnx.FilterError, match=r"`\.\.\.` matches everything"):
        Axes({...: 0, nnx.Param: 1})


def test_prefixes_of_another_structure() -> None:
    found = re.escape("x.s has 2 children but its prefix (1,) has 1: give one entry per child")
    with pytest.raises(nnx.PrefixError, match=found):
        spread(model(), {"w": 0, "s": (1,), "child": 0})
    found = re.escape("the prefix of x has no entry 'child': found ['s', 'w']")
    with pytest.raises(nnx.PrefixError, match=found):
        spread(model(), {"w": 0, "s": 0})


def test_filtered_prefixes_are_values() -> None:
    a, b = Axes({nnx.Param: 0, ...: None}), Axes([(nnx.Param, 0), (..., None)])
    assert a == b
    assert hash(a) == hash(b)
    assert a != Axes({nnx.Param: 1, ...: None})
    assert a != prefixes.FilteredPrefix({nnx.Param: 0, ...: None})
    assert a.filters == (nnx.Param, ...)
    assert a.items() == ((nnx.Param, 0), (..., None))
    assert repr(a) == "Axes({Param: 0, ...: None})"
    assert repr(Axes({"tag": "x"})) == "Axes({'tag': 'x'})"


def test_path_filters_of_prefixes() -> None:
    filters = nnx.statelib.create_path_filters(nnx.State({"a": {"x": 0, "y": 1}, "b": 0}))
    assert [repr(f) for f in filters] == ["PathIn(('a', 'x'), ('b',))", "PathIn(('a', 'y'))"]
    assert list(filters.values()) == [0, 1]


def test_a_state_has_prefixes_by_path() -> None:
    values = {"a": {"w": 0, "b": None}, "c": 0}
    axes = Axes(nnx.State(values))
    assert axes == Axes(jax.tree.map(nnx.Variable, nnx.State(values), is_leaf=lambda x: x is None))
    assert axes.map_prefix(("a", "w"), None) == 0 and axes.map_prefix(("a", "b"), None) is None
    assert set(axes.leaf_prefixes()) == {0, None}
    with pytest.raises(nnx.PrefixError, match=r"no filter of Axes.* matches a\.x, a Param"):
        axes.map_prefix(("a", "x"), nnx.Param(1.0))


def test_distinct_leaves() -> None:
    axes = Axes({nnx.Param: 0, ...: (1, 2)})
    box = Box(x=nnx.data(1.0), name="static")
    assert prefixes.distinct((0, [axes, None]), {"a": True}, box) == [0, 1, 2, None, True, 1.0]
    assert prefixes.distinct() == []
    assert prefixes.position(True, [1, 1.0, True]) == 2
    with pytest.raises(nnx.PrefixError, match=re.escape("3 is not among the prefixes [1, 2]")):
        prefixes.position(3, [1, 2])


def test_the_base_class_decides_nothing() -> None:
    base = prefixes.PrefixMapping()
    for ask in (lambda: base.map_prefix((), 1), base.leaf_prefixes, lambda: base.map_argument(1)):
        with pytest.raises(NotImplementedError):
            ask()
