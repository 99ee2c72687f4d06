"""`prefix`: axes of a whole model, worked out by filters or a function."""

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


@pytest.fixture
def norm():
    return nnx.BatchNorm(2, rngs=nnx.Rngs(0))


def axes_of(prefix, node):
    pairs = nnx.to_flat_state(nnx.state(node))
    return {path[-1]: prefix.map_prefix(path, variable) for path, variable in pairs}


@pytest.mark.parametrize(
    "filter_map",
    [
        {nnx.Param: 0, ...: None},
        nnx.StateAxes({nnx.Param: 0, ...: None}),
        lambda path, variable: 0 if path[-1] in ("bias", "scale") else None,
    ],
    ids=["mapping", "StateAxes", "function"],
)
def test_axes_of_a_model(norm, filter_map):
    prefix = nnx.prefix(norm, filter_map)
    assert axes_of(prefix, norm) == {"bias": 0, "mean": None, "scale": 0, "var": None}


def test_axes_are_used_by_vmap():
    models = nnx.vmap(lambda key: nnx.Linear(2, 3, rngs=nnx.Rngs(key)))(jnp.arange(4))
    models.bias.value = jnp.zeros(3)
    axes = nnx.prefix(models, {nnx.PathContains("kernel"): 0, ...: None})
    y = nnx.vmap(lambda m, x: m(x), in_axes=(axes, None))(models, jnp.ones(2))
    np.testing.assert_allclose(y, models.kernel.value.sum(1), rtol=1e-6)


def test_prefixes_of_a_tree_see_paths_from_its_root(norm):
    paths = []

    def choose(path, value):
        paths.append(path)
        return 1

    tree = nnx.prefix({"m": norm, "x": jnp.ones(2), "v": nnx.Param(1.0)}, choose)
    assert tree["x"] == tree["v"] == 1
    assert axes_of(tree["m"], norm) == dict.fromkeys(["bias", "mean", "scale", "var"], 1)
    assert set(paths) == {("m", n) for n in ("bias", "mean", "scale", "var")} | {("x",), ("v",)}


def test_errors(norm):
    with pytest.raises(nnx.PrefixError, match="matches mean, a BatchStat"):
        nnx.prefix(norm, {nnx.Param: 0})
    with pytest.raises(nnx.SharedReferenceError):
        nnx.prefix(nnx.Dict(a=norm, b=norm), {...: 0}, graph=False)
