"""States, FlatStates and pure dicts."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft as nnx
from weft import statelib


def sample() -> nnx.State:
    return nnx.State(
        {
            "b": nnx.Param(jnp.ones(2)),
            "a": {10: nnx.BatchStat(1.0), 9: nnx.Param(2.0)},
            "tree": nnx.Param({"p": jnp.zeros(1)}),
        }
    )


PATHS = (("a", 9), ("a", 10), ("b",), ("tree",))


# -- State


def test_a_nested_mapping() -> None:
    state = sample()
    assert list(state) == ["a", "b", "tree"]
    assert list(state["a"]) == [9, 10]
    assert len(state) == 3
    assert "a" in state
    assert 9 in state["a"]
    assert state.b is state["b"]
    assert state.a[9].value == 2.0
    state["a"][9] = nnx.Param(5.0)
    assert state.a[9].value == 5.0
    state.new = nnx.Param(1.0)
    assert "new" in state
    del state.new
    del state["b"]
    assert list(state) == ["a", "tree"]
    assert state.get("missing", 3) == 3
    state["a"] = nnx.State({"x": 1})
    assert state.raw_mapping["a"] == {"x": 1}
    assert type(state.raw_mapping["a"]) is dict


def test_a_missing_key() -> None:
    state = sample()
    with pytest.raises(
        AttributeError, match=re.escape("the State has no key 'c'; it has ['a', 'b'")
    ):
        _ = state.c
    with pytest.raises(KeyError):
        _ = state["c"]
    with pytest.raises(AttributeError):
        _ = state.__missing__


def test_made_from_pairs_and_states() -> None:
    state = nnx.State([("a", 1), ("b", {"c": 2})])
    assert state.b.c == 2
    assert nnx.State(state) == state
    copied = nnx.State(state)
    copied["a"] = 5
    assert state.a == 1


def test_equality() -> None:
    assert sample() == sample()
    assert sample() != 1
    other = sample()
    other.b[...] = jnp.zeros(2)
    assert other != sample()
    other = sample()
    other.b.set_metadata(tag="x")
    assert other != sample()
    assert nnx.State({"a": nnx.Param(1.0)}) != nnx.State({"a": nnx.BatchStat(1.0)})
    with pytest.raises(TypeError, match="unhashable"):
        hash(sample())


def test_a_state_is_a_pytree() -> None:
    state = sample()
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert paths == ["['a'][9].value", "['a'][10].value", "['b'].value", "['tree'].value['p']"]
    doubled = jax.tree.map(lambda x: x * 2, state)
    assert type(doubled) is nnx.State
    assert doubled.a[9].value == 4.0
    assert state.a[9].value == 2.0
    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    assert len(jax.tree.leaves(state, is_leaf=is_variable)) == 4
    out = jax.jit(lambda s: s)(state)
    assert out == state
    reversed_ = nnx.State({key: state[key] for key in reversed(list(state))})
    assert jax.tree.structure(reversed_) == jax.tree.structure(state)


@pytest.mark.parametrize("through", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_deep_copies(through: Any) -> None:
    state = sample()
    new = through(state)
    assert new == state
    new.a[9].value = 7.0
    assert state.a[9].value == 2.0


def test_views_write_through() -> None:
    state = sample()
    inner = state["a"]
    inner["x"] = 1
    assert state["a"]["x"] == 1


# -- flat


def test_flat_and_back() -> None:
    state = sample()
    flat = state.flat_state()
    assert flat.paths == PATHS
    assert list(flat) == list(nnx.to_flat_state(state))
    assert nnx.from_flat_state(flat) == state
    assert nnx.from_flat_state(dict(flat)) == state
    assert nnx.State.from_flat_path(list(flat)) == state
    assert flat.to_nested_state() == state
    assert type(nnx.from_flat_state(flat, cls=dict)["a"]) is dict


@given(
    st.recursive(
        st.integers(),
        lambda inner: st.dictionaries(st.text(max_size=2) | st.integers(0, 12), inner),
    ).filter(lambda tree: isinstance(tree, dict))
)
def test_flattening_is_undone(tree: dict) -> None:
    flat = nnx.to_flat_state(tree)
    again = nnx.from_flat_state(flat, cls=dict)
    assert nnx.to_flat_state(again).paths == flat.paths
    assert nnx.to_pure_dict(nnx.State(tree)) == again

    def drop_empty(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        kept = {key: drop_empty(child) for key, child in tree.items()}
        return {key: child for key, child in kept.items() if child != {}}

    assert again == drop_empty(tree)


def test_paths_that_cross() -> None:
    for pairs in ([(("a",), 1), (("a", "b"), 2)], [(("a",), {"x": 1}), (("a", "b"), 2)]):
        with pytest.raises(nnx.StructureError, match=r"a\.b goes through a leaf of the State"):
            nnx.from_flat_state(pairs)
    with pytest.raises(nnx.StructureError, match="a is a leaf, but other paths go through it"):
        nnx.from_flat_state([(("a", "b"), 2), (("a",), 1)])
    with pytest.raises(
        nnx.StructureError, match="a leaf with an empty path has no place in a State"
    ):
        nnx.from_flat_state([((), 1)])
    assert nnx.from_flat_state([(("a",), 1), (("a",), 2)]).a == 2


def test_flat_states() -> None:
    flat = nnx.FlatState([(("b",), 1), (("a", 10), 2), (("a", 9), 3)])
    assert flat.paths == (("a", 9), ("a", 10), ("b",))
    assert flat.leaves == [3, 2, 1]
    assert flat[0] == (("a", 9), 3)
    assert flat[1:].paths == (("a", 10), ("b",))
    assert len(flat) == 3
    assert dict(flat)[("b",)] == 1
    assert jax.tree.leaves(flat) == [3, 2, 1]
    assert jax.tree.map(lambda x: x + 1, flat).leaves == [4, 3, 2]
    unsorted = nnx.FlatState([(("b",), 1), (("a",), 2)], sort=False)
    assert unsorted.paths == (("b",), ("a",))
    same = nnx.FlatState.from_sorted_keys_values(flat.paths, flat.leaves)
    assert list(same) == list(flat)
    with pytest.raises(ValueError, match="zip"):
        nnx.FlatState.from_sorted_keys_values([("a",)], [])


def test_flat_states_split_filter_merge() -> None:
    flat = nnx.to_flat_state(sample())
    params, rest = flat.split(nnx.Param, ...)
    assert params.paths == (("a", 9), ("b",), ("tree",))
    assert rest.paths == (("a", 10),)
    assert flat.split(...).paths == PATHS
    assert flat.filter(nnx.BatchStat).paths == rest.paths
    assert flat.filter(nnx.BatchStat, nnx.Cache)[1].paths == ()
    merged = nnx.FlatState.merge(rest, params)
    assert merged.paths == PATHS
    replaced = nnx.FlatState.merge(flat, nnx.FlatState([(("b",), "new")]))
    assert dict(replaced)[("b",)] == "new"


# -- splitting and joining


def test_split_filter_merge() -> None:
    state = sample()
    params, rest = nnx.split_state(state, nnx.Param, ...)
    assert nnx.to_flat_state(params).paths == (("a", 9), ("b",), ("tree",))
    assert nnx.to_flat_state(rest).paths == (("a", 10),)
    assert params.b is state.b
    assert state.split(nnx.Param, ...)[1] == rest
    assert nnx.split_state(state, ...) == state
    assert nnx.filter_state(state, nnx.BatchStat) == rest == state.filter(nnx.BatchStat)
    assert nnx.filter_state(state, nnx.Cache, nnx.Param)[0] == nnx.State({})
    assert nnx.merge_state(params, rest) == state == nnx.State.merge(params, rest) == params | rest
    assert state - rest == params
    assert statelib.diff(state, state) == nnx.State({})
    later = nnx.merge_state(state, nnx.State({"b": 1}), nnx.State({"b": 2}))
    assert later.b == 2
    assert type(nnx.merge_state(state, rest, cls=dict)) is dict


def test_filters_that_leave_something_over() -> None:
    found = re.escape(
        "leave 2 of the Variables over: b (Param), tree (Param). Add `...` as the last filter"
    )
    with pytest.raises(nnx.FilterError, match=found):
        nnx.split_state(sample(), nnx.PathContains("a"))
    with pytest.raises(nnx.FilterError, match="the filters"):
        nnx.to_flat_state(sample()).split(nnx.BatchStat)


def test_map() -> None:
    state = sample()
    named = nnx.map_state(lambda path, leaf: (path, type(leaf).__name__), state)
    assert named.a[9] == (("a", 9), "Param")
    assert state.map(lambda path, leaf: path).b == ("b",)


# -- pure dicts


def test_pure_dicts() -> None:
    state = sample()
    pure = nnx.to_pure_dict(state)
    assert type(pure) is type(pure["a"]) is dict
    assert pure["a"] == {9: 2.0, 10: 1.0}
    assert pure["b"] is state.b.value
    assert pure["tree"] == state.tree.value and pure["tree"] is not state.tree.value
    assert pure["tree"]["p"] is state.tree.value["p"]
    names = state.to_pure_dict(lambda leaf: type(leaf).__name__)
    assert names["a"][10] == "BatchStat"


def test_replaced_by_a_pure_dict() -> None:
    state = sample()
    kept = state.b
    new = {"a": {"9": 7.0}, "b": jnp.zeros(2), "tree": {"p": jnp.ones(1)}}
    nnx.replace_by_pure_dict(state, new)
    assert state.a[9].value == 7.0
    assert type(state.b) is nnx.Param
    assert state.b is not kept
    assert kept[...].tolist() == [1.0, 1.0]
    assert state.tree.value["p"].tolist() == [1.0]
    assert state.a[10].value == 1.0
    state.replace_by_pure_dict({"b": 3.0}, lambda leaf, value: leaf.replace(value * 2))
    assert state.b.value == 6.0
    again = sample()
    nnx.replace_by_pure_dict(again, nnx.to_pure_dict(sample()))
    assert again == sample()


def test_a_pure_dict_that_does_not_fit() -> None:
    state = sample()
    found = re.escape("the State has no c, b.value; it has a[9], a[10], b, tree")
    with pytest.raises(nnx.StructureError, match=found):
        nnx.replace_by_pure_dict(state, {"a": {9: 0.0}, "c": 1, "b": {"value": 2.0}})
    assert state == sample()


def test_int_keys_come_back() -> None:
    restored = nnx.restore_int_paths({"layers": {"0": 1, "10": {"02": 2}, "x1": 3}, 5: 4})
    assert restored == {"layers": {0: 1, 10: {2: 2}, "x1": 3}, 5: 4}


def test_states_equal_mappings_of_the_same_leaves():
    assert nnx.State({}) == {} and {"a": {"b": 1}} == nnx.State({"a": {"b": 1}})
    assert nnx.State({"a": 1}) != {"a": 2} and nnx.State({"a": 1}) != {"a": 1, "b": 2}
    assert nnx.State({}) != [] and nnx.State({}) != None  # noqa: E711
    array = jnp.arange(3)
    assert nnx.State({"a": nnx.Param(array)}) == {"a": nnx.Param(array)}
