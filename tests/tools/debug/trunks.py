"""Models of twelve blocks in which NaN can be planted: in the forward or the backward pass of one.

`plant` arms a Variable of one block's query: `bad` makes its output NaN, and `flat` at 0 makes the
slope of a square root in it infinite, while its value stays finite.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import weft as nnx

N, AT = 12, 5
PATH = f"model.blocks[{AT}].attention.query"


class Query(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jnp.eye(4) + 0.1 * rngs.normal((4, 4)))
        self.bad, self.flat = nnx.Variable(jnp.zeros(())), nnx.Variable(jnp.ones(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x @ self.kernel
        x = jnp.where(self.bad[...] > 0, jnp.log(-jnp.abs(x) - 1.0), x)
        flat = self.flat[...]
        root = jnp.sqrt(jnp.sum(x * x) * flat * 0.0 + flat)
        return x + root - jnp.sqrt(jax.lax.stop_gradient(flat))


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.query = Query(rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.query(x))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.attention = Attention(rngs)
        self.mlp = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.mlp(self.attention(x))


class Plain(nnx.Module):
    """Blocks in a list."""

    def __init__(self, rngs: nnx.Rngs):
        self.blocks: Any = self.make(rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs)

    def make(self, rngs: nnx.Rngs) -> Any:
        return nnx.List([Block(rngs) for _ in range(N)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.run(x))

    def run(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x


class Remat(Plain):
    def run(self, x: jax.Array) -> jax.Array:
        again = nnx.remat(lambda block, x: block(x))
        for block in self.blocks:
            x = again(block, x)
        return x


class Scanned(Plain):
    def make(self, rngs: nnx.Rngs) -> Any:
        return nnx.vmap(Block)(rngs.split(N))

    def run(self, x: jax.Array) -> jax.Array:
        carry = nnx.Carry
        forward = nnx.scan(lambda x, block: block(x), in_axes=(carry, 0), out_axes=carry)
        return forward(x, self.blocks)


class Stacked(Plain):
    def make(self, rngs: nnx.Rngs) -> Any:
        return nnx.Stack(Block, N, rngs=rngs)

    def run(self, x: jax.Array) -> jax.Array:
        return self.blocks(x)


class StackedRemat(Stacked):
    def make(self, rngs: nnx.Rngs) -> Any:
        return nnx.Stack(Block, N, rngs=rngs, remat=True)


MODELS = {kind.__name__: kind for kind in (Plain, Remat, Scanned, Stacked, StackedRemat)}


def plant(model: Plain, phase: str | None) -> None:
    """Makes one block bad in a phase, and all others good."""
    blocks: Any = model.blocks
    for name, phase_of, good, bad in (("bad", "forward", 0.0, 1.0), ("flat", "backward", 1.0, 0.0)):
        value = bad if phase == phase_of else good
        if isinstance(blocks, nnx.List):
            for i, block in enumerate(blocks):
                query = block.attention.query
                getattr(query, name)[...] = jnp.float32(value if i == AT else good)
        else:
            stacked = blocks.stacked if isinstance(blocks, nnx.Stack) else blocks
            values = jnp.full(N, good, jnp.float32).at[AT].set(value)
            getattr(stacked.attention.query, name)[...] = values


X = jax.random.normal(jax.random.key(0), (3, 4))
