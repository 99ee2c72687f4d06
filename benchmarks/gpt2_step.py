"""GPT-2 of 124 M parameters, and a train step of it with one loss or another.

Parameters are float32, computed with in bfloat16, and trained by AdamW; the table of tokens is the
last layer as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model and its batch are."""

    blocks: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    length: int = 1024
    batch: int = 16

    def parameters(self) -> int:
        block = 12 * self.width**2 + 13 * self.width
        rows = self.vocabulary + self.length
        return self.blocks * block + rows * self.width + 2 * self.width


TINY = Size(blocks=1, width=8, heads=2, vocabulary=50, length=8, batch=2)
LOW: dict[str, Any] = {"dtype": jnp.bfloat16}


class Block(nnx.Module):
    def __init__(self, size: Size, rngs: nnx.Rngs):
        width, self.heads = size.width, size.heads
        self.before_attention = nnx.LayerNorm(width, rngs=rngs, **LOW)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs, **LOW)
        self.out = nnx.Linear(width, width, rngs=rngs, **LOW)
        self.before_mlp = nnx.LayerNorm(width, rngs=rngs, **LOW)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs, **LOW)
        self.down = nnx.Linear(4 * width, width, rngs=rngs, **LOW)

    def attention(self, x: jax.Array) -> jax.Array:
        *lead, width = x.shape
        qkv = (y.reshape(*lead, self.heads, -1) for y in jnp.split(self.qkv(x), 3, -1))
        # Fused where it can be: scores of 1024 × 1024 would be as large as the logits.
        fused = "cudnn" if jax.default_backend() == "gpu" else None
        with jax.numpy_dtype_promotion("standard"):
            y = jax.nn.dot_product_attention(*qkv, is_causal=True, implementation=fused)
        return self.out(y.reshape(*lead, width))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.before_attention(x))
        return x + self.down(nnx.gelu(self.up(self.before_mlp(x))))


class GPT2(nnx.Module):
    def __init__(self, size: Size, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(size.vocabulary, size.width, rngs=rngs, **LOW)
        self.positions = nnx.Embed(size.length, size.width, rngs=rngs, **LOW)
        self.blocks = nnx.List([Block(size, rngs) for _ in range(size.blocks)])
        self.norm = nnx.LayerNorm(size.width, rngs=rngs, **LOW)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns what the last layer gets."""
        x = self.tokens(x) + self.positions(jnp.arange(x.shape[-1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def plain(model: GPT2, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = model.tokens.attend(model(x)).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def chunked(model: GPT2, x: jax.Array, y: jax.Array) -> jax.Array:
    return nnx.linear_cross_entropy(model(x), model.tokens.embedding, y, transposed=True, **LOW)


LOSSES: dict[str, Callable[..., jax.Array]] = {
    "logits in memory": plain,
    "nnx.linear_cross_entropy": chunked,
}


class Step:
    """A compiled train step with all that it needs; calling it returns the loss."""

    def __init__(self, size: Size, loss: Callable[..., jax.Array]):
        self.model = GPT2(size, nnx.Rngs(0))
        self.optimizer = nnx.Optimizer(self.model, optax.adamw(3e-4), wrt=nnx.Param)
        random = np.random.default_rng(0)
        tokens = random.integers(0, size.vocabulary, (size.batch, size.length + 1), dtype=np.int32)
        self.batch = jnp.asarray(tokens[:, :-1]), jnp.asarray(tokens[:, 1:])

        def step(model: GPT2, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            value, grads = nnx.value_and_grad(loss)(model, x, y)
            optimizer.update(model, grads)
            return value

        self.step = nnx.jit(step)

    def __call__(self) -> jax.Array:
        return self.step(self.model, self.optimizer, *self.batch)

    def peak(self) -> int:
        """Returns the most bytes there are at once during a call, as the compiler says."""
        lowered = self.step.lower(self.model, self.optimizer, *self.batch)
        stats = lowered.compile().memory_analysis()
        new = stats.output_size_in_bytes - stats.alias_size_in_bytes
        return stats.argument_size_in_bytes + stats.temp_size_in_bytes + new
