"""One small transformer, written with each of the libraries that are compared.

Tokens to logits: embedding and learned positions, blocks of causal attention and a perceptron, each
behind an RMS norm and without biases, and a linear head. A block has six arrays. For nnx the
library is an argument: the same lines are Weft's and flax's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a transformer and its batch are."""

    blocks: int
    width: int
    heads: int = 4
    vocabulary: int = 256
    length: int = 64
    batch: int = 8


def tokens(size: Size) -> np.ndarray:
    """Returns tokens of shape (batch, length + 1)."""
    random = np.random.default_rng(0)
    return random.integers(0, size.vocabulary, (size.batch, size.length + 1), dtype=np.int32)


def attention(x: jax.Array, heads: int) -> jax.Array:
    """Causal attention of (batch, length, 3 width): queries, keys, values; the width remains."""
    *lead, width = x.shape
    query, key, value = (y.reshape(*lead, heads, -1) for y in jnp.split(x, 3, -1))
    y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
    return y.reshape(*lead, width // 3)


def token_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


# -- the API of nnx


def nnx_block(nnx: Any, size: Size) -> type:
    """Returns the class of a block, made from `rngs`."""
    width = size.width

    class Block(nnx.Module):
        def __init__(self, rngs: Any):
            def linear(inputs: int, outputs: int) -> Any:
                return nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)

            self.before_attention = nnx.RMSNorm(width, rngs=rngs)
            self.qkv, self.out = linear(width, 3 * width), linear(width, width)
            self.before_mlp = nnx.RMSNorm(width, rngs=rngs)
            self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + self.out(attention(self.qkv(self.before_attention(x)), size.heads))
            return x + self.down(jax.nn.gelu(self.up(self.before_mlp(x))))

    return Block


def nnx_transformer(nnx: Any, size: Size) -> type:
    """Returns the class of the model, made from `rngs`."""
    block = nnx_block(nnx, size)

    class Transformer(nnx.Module):
        def __init__(self, rngs: Any):
            self.embedding = nnx.Embed(size.vocabulary, size.width, rngs=rngs)
            self.positions = nnx.Embed(size.length, size.width, rngs=rngs)
            self.blocks = nnx.List([block(rngs) for _ in range(size.blocks)])
            self.norm = nnx.RMSNorm(size.width, rngs=rngs)
            self.head = nnx.Linear(size.width, size.vocabulary, use_bias=False, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = self.embedding(x) + self.positions(jnp.arange(x.shape[-1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return Transformer


def nnx_step(nnx: Any, **mode: Any) -> Callable[..., jax.Array]:
    """Returns a train step (model, optimizer, x, y), not compiled."""

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: token_loss(m(x), y), **mode)(model)
        optimizer.update(model, grads)
        return loss

    return train_step


# -- by hand


def raw_block_params(key: jax.Array, size: Size) -> dict[str, jax.Array]:
    width = size.width
    shapes = {
        "qkv": (width, 3 * width),
        "out": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
    }
    init = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, len(shapes))
    kernels = {
        name: init(k, shape, jnp.float32)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    norms = {name: jnp.ones(width) for name in ("before_attention", "before_mlp")}
    return kernels | norms


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * (jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale)


def raw_block(params: dict[str, jax.Array], x: jax.Array, size: Size) -> jax.Array:
    y = rms_norm(x, params["before_attention"]) @ params["qkv"]
    x = x + attention(y, size.heads) @ params["out"]
    y = rms_norm(x, params["before_mlp"]) @ params["up"]
    return x + jax.nn.gelu(y) @ params["down"]


def raw_params(size: Size) -> dict[str, Any]:
    embedding, positions, head, blocks = jax.random.split(jax.random.key(0), 4)
    init = jax.nn.initializers.lecun_normal()
    return {
        "embedding": init(embedding, (size.vocabulary, size.width), jnp.float32),
        "positions": init(positions, (size.length, size.width), jnp.float32),
        "blocks": [raw_block_params(k, size) for k in jax.random.split(blocks, size.blocks)],
        "norm": jnp.ones(size.width),
        "head": init(head, (size.width, size.vocabulary), jnp.float32),
    }


def raw_transformer(params: dict[str, Any], x: jax.Array, size: Size) -> jax.Array:
    x = params["embedding"][x] + params["positions"][jnp.arange(x.shape[-1])]
    for block in params["blocks"]:
        x = raw_block(block, x, size)
    return rms_norm(x, params["norm"]) @ params["head"]


def raw_step(tx: Any, size: Size) -> Callable[..., Any]:
    """Returns a train step (params, state, x, y) to (loss, params, state), not compiled."""

    def train_step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss_fn = lambda params: token_loss(raw_transformer(params, x, size), y)  # noqa: E731
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params)
        return loss, optax.apply_updates(params, updates), state

    return train_step


# -- equinox


def equinox_transformer(eqx: Any, size: Size) -> Any:
    """Returns the model."""
    width = size.width
    keys = iter(jax.random.split(jax.random.key(0), 4 * size.blocks + 3))

    def linear(inputs: int, outputs: int) -> Any:
        return eqx.nn.Linear(inputs, outputs, use_bias=False, key=next(keys))

    def norm() -> Any:
        return eqx.nn.RMSNorm(width, eps=1e-6, use_bias=False)

    def each(f: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        return jax.vmap(jax.vmap(f))(x)

    class Block(eqx.Module):
        before_attention: Any
        qkv: Any
        out: Any
        before_mlp: Any
        up: Any
        down: Any

        def __init__(self):
            self.before_attention, self.before_mlp = norm(), norm()
            self.qkv, self.out = linear(width, 3 * width), linear(width, width)
            self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

        def __call__(self, x: jax.Array) -> jax.Array:
            y = attention(each(self.qkv, each(self.before_attention, x)), size.heads)
            x = x + each(self.out, y)
            return x + each(self.down, jax.nn.gelu(each(self.up, each(self.before_mlp, x))))

    class Transformer(eqx.Module):
        embedding: Any
        positions: Any
        blocks: list[Any]
        norm: Any
        head: Any

        def __init__(self):
            self.embedding = eqx.nn.Embedding(size.vocabulary, width, key=next(keys))
            self.positions = eqx.nn.Embedding(size.length, width, key=next(keys))
            self.blocks = [Block() for _ in range(size.blocks)]
            self.norm, self.head = norm(), linear(width, size.vocabulary)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = each(self.embedding, x) + jax.vmap(self.positions)(jnp.arange(x.shape[-1]))
            for block in self.blocks:
                x = block(x)
            return each(self.head, each(self.norm, x))

    return Transformer()


def equinox_step(eqx: Any, tx: Any) -> Callable[..., Any]:
    """Returns a train step ((x, y), model, state) to (loss, model, state), not compiled."""

    def train_step(given: tuple[jax.Array, jax.Array], model: Any, state: Any) -> Any:
        x, y = given
        loss, grads = eqx.filter_value_and_grad(lambda m: token_loss(m(x), y))(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
        return loss, eqx.apply_updates(model, updates), state

    return train_step
