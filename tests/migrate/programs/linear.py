"""The first program of every tutorial."""

import jax.numpy as jnp
import optax
from flax import nnx

model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, x, y):
    loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
    optimizer.update(model, grads)
    return loss


x = jnp.arange(6.0).reshape(3, 2) / 6
for _ in range(3):
    print(f"{train_step(model, optimizer, x, x.sum(1, keepdims=True)):.6f}")
