"""Layers are made by vmap and applied by scan."""

import jax
import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.dropout(jnp.tanh(self.linear(x)))


@nnx.split_rngs(splits=5)
@nnx.vmap(in_axes=(0,), out_axes=0)
def make(rngs: nnx.Rngs):
    return Block(rngs)


@nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
def forward(block, x):
    return block(x)


blocks = make(nnx.Rngs(0))
print(blocks.linear.kernel.shape, f"{forward(blocks, jnp.ones((2, 4))).sum():.5f}")
print(len(jax.tree.leaves(nnx.state(blocks, nnx.Param))))
