"""Attention decodes one step after the other."""

import jax
import jax.numpy as jnp
from flax import nnx

layer = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=True, rngs=nnx.Rngs(0))
layer.init_cache((1, 4, 8))
step = nnx.jit(lambda layer, x: layer(x))
x = jax.random.normal(jax.random.key(1), (1, 4, 8))
print([f"{jnp.sum(step(layer, x[:, i : i + 1])):.5f}" for i in range(4)])
print(int(layer.cache_index[...]))
