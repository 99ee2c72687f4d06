"""Levels: nested dicts from leaves and back."""

from __future__ import annotations

import collections
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft as nnx
from weft._graph.levels import levels_of

PATHS = [("b",), ("a", 0, "x"), ("a", 0, "y"), ("a", 1), ("c", "x")]
NESTED: dict[Any, Any] = {"b": 0, "a": {0: {"x": 1, "y": 2}, 1: 3}, "c": {"x": 4}}


def test_there_and_back() -> None:
    levels = levels_of(PATHS)
    nested = levels.nest(range(5))
    assert nested == NESTED
    assert list(nested) == ["b", "a", "c"]
    assert levels.leaves(nested) == list(range(5))
    nested["a"][0]["x"] = 9
    assert levels.nest(range(5)) == NESTED


def test_no_leaves() -> None:
    levels = levels_of([])
    assert levels.nest([]) == {}
    assert levels.leaves({}) == []
    assert levels.leaves({"a": 1}) is None


def test_one_leaf_that_is_all() -> None:
    assert levels_of([()]) is None
    assert levels_of([("a",)]) is not None


@pytest.mark.parametrize(
    "nested",
    [
        {**NESTED, "d": 1},
        {"b": 0, "a": NESTED["a"]},
        {**NESTED, "c": {"x": 4, "y": 5}},
        {**NESTED, "c": {"y": 4}},
        {**NESTED, "c": 4},
        {**NESTED, "b": {"x": 0}},
        {**NESTED, "b": nnx.State({"x": 0})},
        {**NESTED, "b": collections.OrderedDict(x=0)},
        {**NESTED, "c": nnx.Variable({"x": 4})},
        [0, 1, 2, 3, 4],
        None,
    ],
    ids=str,
)
def test_other_levels(nested: Any) -> None:
    assert levels_of(PATHS).leaves(nested) is None


keys = st.one_of(st.sampled_from("abc"), st.integers(0, 2))


@given(st.recursive(st.none(), lambda below: st.dictionaries(keys, below, min_size=1)))
def test_random_levels(tree: Any) -> None:
    if tree is None:
        return
    paths: list[Any] = []

    def number(level: Any, path: Any) -> Any:
        if level is None:
            paths.append(path)
            return len(paths) - 1
        return {key: number(below, (*path, key)) for key, below in level.items()}

    nested = number(tree, ())
    levels = levels_of(paths)
    assert levels.nest(range(len(paths))) == nested
    assert levels.leaves(nested) == list(range(len(paths)))
