"""Names are imported one by one, from modules of the package as well."""

import jax.numpy as jnp
from flax.nnx import Module, Param, Rngs, split
from flax.nnx.nn.linear import Linear
from flax.nnx.statelib import State


class Scaled(Module):
    def __init__(self, rngs: Rngs):
        self.inner = Linear(3, 2, rngs=rngs)
        self.scale = Param(jnp.ones(2))

    def __call__(self, x):
        return self.inner(x) * self.scale


model = Scaled(Rngs(1))
graphdef, state = split(model)
print(isinstance(state, State), sorted(map(str, state)))
print(f"{model(jnp.ones((1, 3))).sum():.6f}")
