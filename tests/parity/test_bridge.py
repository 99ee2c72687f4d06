"""The bridge to Linen: same keys, same values, same masks as the peer's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft

linen = pytest.importorskip("flax.linen", reason="flax is not installed")
flax_nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

X = np.asarray(jax.random.normal(jax.random.key(7), (4, 3)))
LIBRARIES = (flax_nnx, weft)


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=False)(linen.Dense(8)(x))
        return linen.Dropout(0.5, deterministic=False)(x)


def linen_in_nnx(nnx, make_rngs):
    model = nnx.bridge.ToNNX(Net(), rngs=make_rngs(nnx)).lazy_init(X)
    first = model(X, mutable=["batch_stats"])
    return first, model(X, mutable=["batch_stats"]), model.Dense_0["kernel"][...]


def nnx_in_linen(nnx, rngs):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(3, 4, rngs=rngs)
            self.first = nnx.Dropout(0.5, rngs=rngs)
            self.second = nnx.Dropout(0.5, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return self.second(self.first(self.norm(self.layer(x))))

    module = nnx.bridge.to_linen(Model)
    variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)
    return variables, module.apply(variables, X, rngs=rngs, mutable=["batch_stats"])


def assert_equal(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "make_rngs",
    [
        lambda nnx: nnx.Rngs(0),
        lambda nnx: nnx.Rngs(params=3, dropout=4),
        lambda nnx: nnx.Rngs(0, dropout=1),
    ],
    ids=["default", "named", "both"],
)
def test_linen_inside(make_rngs):
    theirs, ours = (linen_in_nnx(nnx, make_rngs) for nnx in LIBRARIES)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("names", [("dropout",), ("dropout", "params")])
def test_inside_linen(names):
    rngs = {name: jax.random.key(i + 5) for i, name in enumerate(names)}
    theirs, ours = (nnx_in_linen(nnx, rngs) for nnx in LIBRARIES)
    assert_equal(ours, theirs)


def test_variables_of_linen():
    for nnx in LIBRARIES:
        attributes = nnx.bridge.variables.linen_vars_to_nnx_attrs(
            {"params": {"d": {"k": jnp.ones(1)}}, "batch_stats": {"d": {"m": jnp.ones(1)}}}
        )
        assert {k: type(v).__name__ for k, v in attributes["d"].items()} == {
            "k": "Param",
            "m": "BatchStat",
        }
