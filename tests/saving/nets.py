"""What is saved in the tests: a model of every kind of leaf, with its optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx


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


def objects(seed: int, kind: type[Net] = Net):
    model = kind(seed)
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
