"""Nested mappings as flat ones, and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weft.traversals import empty_node, flatten_mapping, flatten_to_sequence, unflatten_mapping

import weft as nnx

NESTED = {"a": {"b": 1, "c": {}}, "d": [1, 2], 3: {"e": None}}
FLAT = {("a", "b"): 1, ("d",): [1, 2], (3, "e"): None}

keys = st.text(alphabet="abc", min_size=1)
trees = st.dictionaries(keys, st.recursive(st.integers(), lambda x: st.dictionaries(keys, x)))


def test_flattening_in_the_order_of_the_mapping():
    assert flatten_mapping(NESTED) == FLAT and list(flatten_mapping(NESTED)) == list(FLAT)
    assert flatten_to_sequence(NESTED) == list(FLAT.items())


def test_empty_nodes_are_kept_on_demand():
    assert flatten_mapping(NESTED, keep_empty_nodes=True) == {**FLAT, ("a", "c"): empty_node}
    assert flatten_mapping({}, keep_empty_nodes=True) == {}
    assert repr(empty_node) == "<empty node>"


def test_leaves_are_what_the_caller_says():
    is_leaf = lambda path, mapping: path == ("a",)  # noqa: E731
    assert flatten_mapping(NESTED, is_leaf=is_leaf)[("a",)] is NESTED["a"]
    assert flatten_to_sequence(NESTED, is_leaf=is_leaf)[0] == (("a",), NESTED["a"])
    assert flatten_mapping(NESTED, is_leaf=lambda *_: True) == {(): NESTED}


def test_states_are_mappings():
    state = nnx.state(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
    assert list(flatten_mapping(nnx.State({"m": state}))) == [("m", "bias"), ("m", "kernel")]


@settings(max_examples=30)
@given(trees)
def test_unflattening_is_the_inverse(tree):
    assert unflatten_mapping(flatten_mapping(tree, keep_empty_nodes=True)) == tree
    assert unflatten_mapping(flatten_mapping(tree, keep_empty_nodes=True, sep="/"), sep="/") == tree


def test_unflattening_pairs_and_empty_nodes():
    assert unflatten_mapping([(("a", "b"), 1), (("a", "c"), empty_node)]) == {
        "a": {"b": 1, "c": {}}
    }
    assert unflatten_mapping({(): empty_node}) == {}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: flatten_mapping([1]), TypeError, r"expected a mapping, .* found \[1\]"),
        (lambda: flatten_to_sequence(3), TypeError, "found 3"),
        (lambda: flatten_mapping({1: 2}, sep="/"), TypeError, r"\(1,\) has keys that are no str"),
        (lambda: unflatten_mapping({("a",): 1, ("a", "b"): 2}), ValueError, "a.b goes through"),
        (lambda: unflatten_mapping({("a", "b"): 2, ("a",): 1}), ValueError, "a has a value, and"),
        (lambda: unflatten_mapping({(): 1}), ValueError, "the empty path has the value 1"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
