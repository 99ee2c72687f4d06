"""Other parts of flax are used as well."""

import jax
import jax.numpy as jnp
from flax import (
    nnx,
    struct,  # records
)


@struct.dataclass
class Batch:
    x: jax.Array
    y: jax.Array


batch = Batch(jnp.ones((2, 3)), jnp.zeros((2, 1)))
model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
grads = nnx.grad(lambda m, b: jnp.mean((m(b.x) - b.y) ** 2))(model, batch)
print(f"{grads['bias'][...].sum():.6f}")
