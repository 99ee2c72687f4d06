"""What a model sows is popped."""

import jax.numpy as jnp
from flax import nnx


class Model(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x):
        y = self.linear(x)
        self.sow(nnx.Intermediate, "y", y)
        return y * 2


model = Model(nnx.Rngs(0))
out = nnx.jit(lambda model, x: model(x))(model, jnp.ones((1, 2)))
found = nnx.pop(model, nnx.Intermediate)
print(f"{out.sum():.5f} {found['y'].get_value()[0].sum():.5f}")
