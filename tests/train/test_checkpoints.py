"""Checkpoints: every step as a whole, checked, and restored anywhere."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft.train.checkpoints import Checkpoints


class Net(nnx.Module):
    def __init__(self, seed: int):
        rngs = nnx.Rngs(seed)
        self.layers = [nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)]
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.tied = self.layers[0].kernel
        self.number = nnx.Variable(seed + 0.1)
        self.scale = nnx.Variable(jnp.asarray(0.5 + seed))  # weakly typed
        self.nested = nnx.Variable({"a": jnp.arange(3) + seed, "b": [jnp.zeros((0, 2))]})
        self.plain = jnp.full(2, seed)
        self.host = np.arange(4) + seed
        self.text = nnx.Dict({"a/b": nnx.Param(1.0 * seed), "..": nnx.Param(jnp.full(1, seed))})


def objects(seed: int):
    model = Net(seed)
    return {"model": model, "optimizer": nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)}


def values(node):
    """The leaves by path, keys as their data, for comparison."""
    flat = {}
    for path, leaf in nnx.to_flat_state(nnx.state(node)):
        raw = leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        is_key = isinstance(raw, jax.Array) and jnp.issubdtype(raw.dtype, jax.dtypes.prng_key)
        flat[path] = jax.random.key_data(raw) if is_key else raw
    return flat


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_objects_round_trip(tmp_path):
    saved, restored = objects(0), objects(1)
    data = {"epoch": 3, "history": [0.1, 1e-300, 1 / 3], "name": "a"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, meta=data, **saved)
    assert Checkpoints(tmp_path).restore(**restored) == data
    assert_same(values(restored), values(saved))
    model = restored["model"]
    assert model.tied is model.layers[0].kernel
    assert type(model.host) is np.ndarray and isinstance(model.plain, jax.Array)
    assert type(model.number.get_raw_value()) is float
    assert model.scale.value.weak_type and not model.plain.weak_type
    assert os.listdir(tmp_path) == ["0000000007"]
