"""What the tests of captures are about: blocks that sow and perturb, and what comes of it."""

import jax.numpy as jnp
import numpy as np

import weft as nnx


class Block(nnx.Module):
    def __init__(self, scale):
        self.scale = nnx.Param(jnp.asarray(scale))

    def __call__(self, x):
        x = self.perturb("nudge", self.times(x))
        self.sow(nnx.Intermediate, "scaled", x)
        return x

    def times(self, x):
        return x * self.scale

    def describe(self):
        return "text"

    def itself(self):
        return self


class Model(nnx.Module):
    def __init__(self):
        self.first = Block(2.0)
        self.rest = [Block(3.0), self.first]

    def __call__(self, x):
        x = self.first(x)
        for block in self.rest:
            x = block(x)
        return x


X = jnp.ones(2)


SOWN = {
    ("first", "scaled"): [[2.0, 2.0], [12.0, 12.0]],
    ("rest", 0, "scaled"): [[6.0, 6.0]],
}


NUDGES = {("first", "nudge"): [0.0, 0.0], ("rest", 0, "nudge"): [0.0, 0.0]}


def values(state):
    return {path: np.asarray(v.value).tolist() for path, v in nnx.to_flat_state(state)}


def paths(node):
    return [path for path, _ in nnx.iter_graph(node)]
