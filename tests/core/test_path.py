"""Paths: their order and how they are written."""

from __future__ import annotations

import itertools

import jax
import jax.tree_util as jtu
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft._core.path import format_path, key_of_entry, path_sort_key, sort_key, sorted_keys

KEYS = st.one_of(
    st.integers(), st.text(max_size=3), st.booleans(), st.tuples(st.integers()), st.none()
)


def test_numbers_by_value_then_names_then_the_rest() -> None:
    keys = ["b", 10, (1,), 9, "a", None, 2, "10"]
    assert sorted_keys(keys) == [2, 9, 10, "10", "a", "b", None, (1,)]
    assert sorted_keys(["b", "a"]) == ["a", "b"]
    assert sorted_keys([]) == []


@given(st.lists(KEYS, max_size=6))
def test_the_order_does_not_depend_on_where_keys_started(keys: list) -> None:
    unique = list({(type(key), key): key for key in keys}.values())
    expected = [repr(key) for key in sorted_keys(unique)]
    for order in itertools.islice(itertools.permutations(unique), 24):
        assert [repr(key) for key in sorted_keys(order)] == expected


@given(st.lists(st.lists(KEYS, max_size=3).map(tuple), max_size=5))
def test_paths_sort_as_nested_keys_do(paths: list) -> None:
    by_key = sorted(paths, key=path_sort_key)
    assert by_key == sorted(paths, key=lambda path: [sort_key(key) for key in path])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("blocks", 3, "dropout", "rate"), "model.blocks[3].dropout.rate"),
        (("a", "two words", (1, 2)), "model.a['two words'][(1, 2)]"),
        ((0,), "model[0]"),
        ((), "model"),
    ],
)
def test_a_path_as_code(path: tuple, text: str) -> None:
    assert format_path(path, "model") == text


def test_a_path_without_root() -> None:
    assert format_path(("a", 0)) == "a[0]"
    assert format_path(()) == "the object itself"
    assert format_path((0, "a")) == "[0].a"


def test_keys_of_jax_key_paths() -> None:
    entries = [
        jtu.GetAttrKey("name"),
        jtu.SequenceKey(3),
        jtu.DictKey(("any", 1)),
        jtu.FlattenedIndexKey(4),
    ]
    assert list(map(key_of_entry, entries)) == ["name", 3, ("any", 1), 4]
    assert key_of_entry("other") == "other"
    ((path, _),) = jax.tree_util.tree_leaves_with_path({"a": [0]})
    assert tuple(map(key_of_entry, path)) == ("a", 0)
