"""Questions about values: what is an object, a container, a leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft import graphlib

LAYER = nnx.Linear(1, 1, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("value", "graph_node", "node", "leaf", "pytree"),
    [
        (LAYER, True, True, False, False),
        (nnx.Rngs(0), True, True, False, False),
        (nnx.Param(1.0), True, False, True, False),
        (jnp.ones(1), False, False, True, False),
        (np.ones(1), False, False, True, False),
        (jax.random.key(0), False, False, True, False),
        ([1], False, True, False, True),
        ((), False, True, False, True),
        ({}, False, True, False, True),
        (nnx.State({}), False, True, False, True),
        (None, False, True, False, True),
        (1, False, False, False, False),
        ("a", False, False, False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kinds(value, graph_node, node, leaf, pytree):
    assert graphlib.is_graph_node(value) is graph_node
    assert graphlib.is_node(value) is node
    assert graphlib.is_node_leaf(value) is leaf
    assert graphlib.is_pytree_node(value) is pytree


def test_paths_of_jax():
    keys = (
        jax.tree_util.DictKey("a"),
        jax.tree_util.SequenceKey(3),
        jax.tree_util.GetAttrKey("x"),
        jax.tree_util.FlattenedIndexKey(2),
    )
    assert graphlib.jax_to_nnx_path(keys) == ("a", 3, "x", 2)
