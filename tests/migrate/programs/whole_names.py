"""Everything is written with its whole name."""

import flax
import flax.nnx
import jax.numpy as jnp

model = flax.nnx.Sequential(
    flax.nnx.Linear(2, 3, rngs=flax.nnx.Rngs(0)),
    flax.nnx.relu,
    flax.nnx.LayerNorm(3, rngs=flax.nnx.Rngs(0)),
)
print(f"{model(jnp.ones((1, 2)))[0, 0]:.5f}")
print(flax.nnx.filterlib.to_predicate(flax.nnx.Param)((), flax.nnx.Param(1.0)))
