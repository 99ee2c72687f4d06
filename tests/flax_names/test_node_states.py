"""Objects in pytrees, taken apart for JAX and put together again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft import extract


def make_layer():
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


# -- NodeStates
def test_node_states_are_pytrees():
    model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    node = nnx.NodeStates.from_split(*nnx.split(model, nnx.Param, ...), metadata={"axes": [0]})
    doubled = jax.jit(lambda node: jax.tree.map(lambda x: 2 * x, node))(node)
    assert doubled.metadata == {"axes": [0]} and doubled.graphdef == node.graphdef
    merged = nnx.merge(doubled.graphdef, *doubled.states)
    np.testing.assert_array_equal(merged.scale.value, [2.0, 2.0])
    assert node.replace(metadata=None).metadata is None
    assert extract.is_tree_node(node) and not extract.is_tree_node(model)


def test_node_states_without_some_of_their_parts():
    states = nnx.NodeStates.from_states(nnx.state(make_layer()))
    assert list(states.state) == ["bias", "kernel"]
    with pytest.raises(ValueError, match="have no GraphDef: make them with"):
        _ = states.graphdef
    prefixes = nnx.NodeStates.from_prefixes([0, None], metadata="axes")
    assert prefixes.states == (0, None) and prefixes.metadata == "axes"
    with pytest.raises(ValueError, match="hold 2 States, not one"):
        _ = prefixes.state


# -- trees
def test_objects_in_a_tree_become_node_states_and_come_back():
    layer, param = make_layer(), nnx.Param(jnp.ones(2))
    tree = {"layers": [layer, layer], "param": param, "x": jnp.ones(3), "n": 1}
    pure = nnx.to_tree(tree)
    assert type(pure["layers"][1]) is nnx.NodeStates and pure["n"] == 1
    back = nnx.from_tree(pure)
    assert back["layers"][0] is back["layers"][1] and back["layers"][0] is not layer
    assert type(back["param"]) is nnx.Param and back["n"] == 1


def test_a_tree_goes_through_jax():
    @jax.jit
    def step(pure):
        tree = nnx.from_tree(pure)
        tree["layer"].kernel.value *= 2
        return nnx.to_tree(tree)

    layer = make_layer()
    back = nnx.from_tree(step(nnx.to_tree({"layer": layer, "again": layer})))
    assert back["again"] is back["layer"]
    np.testing.assert_array_equal(back["layer"].kernel.value, 2 * layer.kernel.value)


def test_prefixes_and_paths_reach_the_functions():
    seen = []

    def split_fn(ctx, path, prefix, leaf):
        seen.append((path, prefix))
        if not isinstance(leaf, nnx.Module):
            return leaf
        return nnx.NodeStates.from_split(*ctx.split(leaf, nnx.Param, ...), metadata=prefix)

    def merge_fn(ctx, path, prefix, leaf):
        seen.append((path, prefix))
        return extract.merge_tree_node(ctx, path, prefix, leaf)

    axes = nnx.StateAxes({...: None})
    tree = ({"m": make_layer(), "x": 1.0}, [2.0, 3.0])
    pure = nnx.to_tree(tree, prefix=(axes, 0), split_fn=split_fn, map_non_graph_nodes=True)
    assert seen == [((0, "m"), axes), ((0, "x"), axes), ((1, 0), 0), ((1, 1), 0)]
    assert pure[0]["m"].metadata is axes and len(pure[0]["m"].states) == 2
    seen.clear()
    back = nnx.from_tree(pure, prefix=(None, 1), merge_fn=merge_fn)
    assert seen == [((0, "m"), None)] and back[0]["m"].out_features == 3


def test_one_object_under_two_prefixes():
    layer = make_layer()
    with pytest.raises(nnx.AliasError, match="reached under two prefixes"):
        nnx.to_tree([layer, layer], prefix=[0, 1])
    pure = nnx.to_tree([layer, layer], prefix=[0, 1], check_aliasing=False)
    assert [node.metadata for node in pure] == [0, 1]
