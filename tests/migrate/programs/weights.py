"""Weights go through pure dicts, as loaders of checkpoints do it."""

import jax.numpy as jnp
from flax import nnx


class Two(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


abstract = nnx.eval_shape(lambda: Two(nnx.Rngs(0)))
graphdef, state = nnx.split(abstract)
pure = nnx.to_pure_dict(state)
for i in range(2):
    pure["layers"][i] = {"kernel": jnp.full((2, 2), i + 1.0), "bias": jnp.zeros(2)}
nnx.replace_by_pure_dict(state, pure)
model = nnx.merge(graphdef, state)
print(model(jnp.ones((1, 2))).tolist(), [str(path) for path, _ in nnx.to_flat_state(state)])
