"""What the tests of random streams are about: streams, alone and in a model, and what they hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


def draws(source, n=2):
    return [source() for _ in range(n)]


def after_draw(nnx):
    """Streams of which each has given one key."""
    rngs = nnx.Rngs(0, params=1, dropout=2)
    for stream in (rngs.default, rngs.params, rngs.dropout):
        stream()
    return rngs


def base_keys(rngs):
    return [rngs[name].key[...] for name in ("default", "params", "dropout")]


def data(key):
    return np.asarray(jax.random.key_data(key))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.noise = rngs.dropout.fork()
        self.scale = nnx.Param(jnp.ones(()))


class Model(nnx.Module):
    def __init__(self, rngs):
        self.rngs = rngs
        self.blocks = [Block(rngs), Block(rngs)]


def make_model():
    return Model(nnx.Rngs(0, dropout=1))


def snapshot(node):
    return [
        (path, data(x.key[...]).tolist(), x.count[...].tolist())
        for path, x in nnx.iter_graph(node)
        if isinstance(x, nnx.RngStream)
    ]


def shapes(node):
    return {path: x.key.shape for path, x in nnx.iter_graph(node) if isinstance(x, nnx.RngStream)}


PARAMS = nnx.Rngs(params=0, dropout=1)
"""What the tests of errors are given."""


def check_error(call, kind, message):
    """The error says it, and `PARAMS` is as it was."""
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)
    assert [int(stream.count[...]) for _, stream in PARAMS.items()] == [0, 0]
    assert set(shapes(PARAMS).values()) == {()}
