"""The transformers of depth.py: unrolled, scanned and stacked, with nnx and by hand.

What the functions ending in `_step` return traces the train step of an abstract model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

WIDTH, HEADS, LENGTH, BATCH = 64, 4, 32, 2
ADAM = optax.adam(1e-3)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal attention of arrays (batch, length, width); returns the same shape."""
    q, k, v = (x.reshape(*x.shape[:-1], HEADS, -1) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(*q.shape[:-2], WIDTH)


def inputs() -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    x = jax.ShapeDtypeStruct((BATCH, LENGTH, WIDTH), jnp.float32)
    return x, x


# -- the API of nnx, for Weft and for flax


def block_class(nnx: Any) -> type:
    """Returns the block as a Module of one of the two libraries."""

    class Block(nnx.Module):
        def __init__(self, rngs: Any):
            linear = lambda n, m: nnx.Linear(n, m, rngs=rngs)  # noqa: E731
            self.before_attention = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.query, self.key, self.value = (linear(WIDTH, WIDTH) for _ in range(3))
            self.out = linear(WIDTH, WIDTH)
            self.before_mlp = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.up, self.down = linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH)

        def __call__(self, x: jax.Array) -> jax.Array:
            y = self.before_attention(x)
            x = x + self.out(attention(self.query(y), self.key(y), self.value(y)))
            return x + self.down(jax.nn.gelu(self.up(self.before_mlp(x))))

    return Block


def unrolled_class(nnx: Any, depth: int) -> type:
    block = block_class(nnx)

    class Unrolled(nnx.Module):
        def __init__(self, rngs: Any):
            self.blocks = nnx.List([block(rngs) for _ in range(depth)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for block in self.blocks:
                x = block(x)
            return x

    return Unrolled


def scanned_class(nnx: Any, depth: int) -> type:
    block = block_class(nnx)

    class Scanned(nnx.Module):
        def __init__(self, rngs: Any):
            self.blocks = nnx.split_rngs(splits=depth)(nnx.vmap(block))(rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            def forward(x: jax.Array, block: Any) -> jax.Array:
                return block(x)

            return forward(x, self.blocks)

    return Scanned


def stack_class(nnx: Any, depth: int) -> Callable[[Any], Any]:
    return lambda rngs: nnx.Stack(block_class(nnx), depth, rngs=rngs)


def nnx_step(nnx: Any, model_class: Callable[[Any, int], Any], depth: int) -> Callable[[], Any]:
    """Returns a function that traces the train step of a model of one of the two libraries."""
    make = model_class(nnx, depth)

    def initial() -> tuple[Any, Any]:
        model = make(nnx.Rngs(0))
        return model, nnx.Optimizer(model, ADAM, wrt=nnx.Param)

    model, optimizer = nnx.eval_shape(initial)

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    return lambda: nnx.jit(train_step).trace(model, optimizer, *inputs())


# -- the same by hand


def init_block(key: jax.Array) -> dict[str, Any]:
    shapes = dict.fromkeys(("query", "key", "value", "out"), (WIDTH, WIDTH))
    shapes |= {"up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    keys = jax.random.split(key, len(shapes))
    linear = {
        name: {
            "kernel": jax.nn.initializers.lecun_normal()(k, shape, jnp.float32),
            "bias": jnp.zeros(shape[1:]),
        }
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    norms = {
        name: {"scale": jnp.ones(WIDTH), "bias": jnp.zeros(WIDTH)}
        for name in ("before_attention", "before_mlp")
    }
    return linear | norms


def apply_block(params: dict[str, Any], x: jax.Array) -> jax.Array:
    def linear(name: str, x: jax.Array) -> jax.Array:
        return x @ params[name]["kernel"] + params[name]["bias"]

    def norm(name: str, x: jax.Array) -> jax.Array:
        mean = jnp.mean(x, -1, keepdims=True)
        variance = jnp.maximum(jnp.mean(x * x, -1, keepdims=True) - mean * mean, 0.0)
        factor = jax.lax.rsqrt(variance + 1e-6) * params[name]["scale"]
        return (x - mean) * factor + params[name]["bias"]

    y = norm("before_attention", x)
    x = x + linear("out", attention(linear("query", y), linear("key", y), linear("value", y)))
    return x + linear("down", jax.nn.gelu(linear("up", norm("before_mlp", x))))


def hand_step(depth: int) -> Callable[[], Any]:
    """Returns a function that traces the train step written with `jax.lax.scan`."""

    def initial() -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.key(0), depth)
        params = jax.vmap(init_block)(keys)
        return params, ADAM.init(params)

    def forward(params: Any, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, block: (apply_block(block, x), None), x, params)[0]

    def train_step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((forward(p, x) - y) ** 2))(params)
        updates, state = ADAM.update(grads, state, params)
        return loss, optax.apply_updates(params, updates), state

    params, state = jax.eval_shape(initial)
    return lambda: jax.jit(train_step).trace(params, state, *inputs())
