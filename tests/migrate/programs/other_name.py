"""The module has another name here, and others stand on the same line."""

from flax import nnx as fnn; import jax.numpy as jnp  # noqa

embed = fnn.Embed(5, 4, rngs=fnn.Rngs(params=3))
print(f"{embed(jnp.array([1, 2])).sum():.6f}")
