"""What tests of weights are made of: small models, and arrays by the names of PyTorch."""

import jax.numpy as jnp
import numpy as np

import weft as nnx


class Block(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.LayerNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.up(x))[..., :2]


class Net(nnx.Module):
    """A Stack, a list, a Sequential, an array of its own and an object that is there twice."""

    def __init__(self, rngs):
        self.blocks = nnx.Stack(Block, 2, rngs=rngs)
        self.heads = [nnx.Linear(3, 2, rngs=rngs)]
        self.body = nnx.Sequential(nnx.relu, nnx.BatchNorm(3, rngs=rngs))
        self.scale = nnx.Param(jnp.ones(3))
        self.tied = self.heads[0]
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


def net(seed=0):
    return Net(nnx.Rngs(seed))


def array(*shape, start=0):
    return np.arange(start, start + int(np.prod(shape)), dtype=np.float32).reshape(shape)


def values(model):
    """All weights of a model, by path."""
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    return {path: np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}


def equal(first, second):
    a, b = values(first), values(second)
    return a.keys() == b.keys() and all((a[path] == b[path]).all() for path in a)


def state():
    """The weights of a model by the names of PyTorch."""
    return {"weight": array(3, 2), "bias": array(3)}


def linear(**options):
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0), **options)


def saved(model, folder, **options):
    nnx.save_weights(model, folder / "m.safetensors", **options)
    return folder / "m.safetensors"
