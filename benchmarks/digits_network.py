"""The network of examples/digits.py and its train step, for nnx and for equinox.

Three convolutions without bias, each with batch normalisation and ReLU, pooling, dropout, a linear
head; images are (batch, 8, 8, 1). The step is one of AdamW and returns the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

CHANNELS = ((1, 32), (32, 32), (32, 64))
CLASSES, BATCH, DROPOUT = 10, 64, 0.3
FEATURES = 4 * 4 * CHANNELS[-1][1]
RATE, DECAY = 4e-3, 1e-3


def batches(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns batches of noise with the shapes and dtypes of the digits."""
    random = np.random.default_rng(0)
    return [
        (
            random.random((BATCH, 8, 8, 1), np.float32),
            random.integers(0, CLASSES, BATCH, dtype=np.int32),
        )
        for _ in range(count)
    ]


def loss_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def adamw() -> optax.GradientTransformation:
    return optax.adamw(RATE, weight_decay=DECAY)


# -- the API of nnx


def nnx_network(nnx: Any) -> Any:
    class Block(nnx.Module):
        def __init__(self, inputs: int, outputs: int, rngs: Any):
            self.conv = nnx.Conv(inputs, outputs, kernel_size=(3, 3), use_bias=False, rngs=rngs)
            self.norm = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return nnx.relu(self.norm(self.conv(x)))

    class Network(nnx.Module):
        def __init__(self, rngs: Any):
            self.blocks = nnx.List([Block(*channels, rngs) for channels in CHANNELS])
            self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
            self.head = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            for i, block in enumerate(self.blocks):
                x = block(x)
                if i == 1:
                    x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
            return self.head(self.dropout(x.reshape(len(x), -1)))

    return Network(nnx.Rngs(0))


def nnx_step(nnx: Any, **mode: Any) -> Callable[..., jax.Array]:
    """Returns a train step (model, optimizer, images, labels), not compiled."""

    def train_step(model: Any, optimizer: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        loss_fn = lambda model: loss_of(model(images), labels)  # noqa: E731
        loss, grads = nnx.value_and_grad(loss_fn, **mode)(model)
        optimizer.update(model, grads)
        return loss

    return train_step


# -- equinox


def equinox_network(eqx: Any) -> tuple[Any, Any]:
    """Returns the model and the state of its batch normalisation."""
    keys = iter(jax.random.split(jax.random.key(0), len(CHANNELS) + 1))

    class Block(eqx.Module):
        conv: Any
        norm: Any

        def __init__(self, inputs: int, outputs: int):
            self.conv = eqx.nn.Conv2d(inputs, outputs, 3, padding=1, use_bias=False, key=next(keys))
            self.norm = eqx.nn.BatchNorm(outputs, "batch", momentum=0.9, mode="batch")

        def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
            x, state = self.norm(self.conv(x), state)
            return jax.nn.relu(x), state

    class Network(eqx.Module):
        blocks: list[Block]
        pool: Any
        dropout: Any
        head: Any

        def __init__(self):
            self.blocks = [Block(*channels) for channels in CHANNELS]
            self.pool = eqx.nn.MaxPool2d(2, 2)
            self.dropout = eqx.nn.Dropout(DROPOUT)
            self.head = eqx.nn.Linear(FEATURES, CLASSES, key=next(keys))

        def __call__(self, x: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, Any]:
            x = jnp.moveaxis(x, -1, 0)
            for i, block in enumerate(self.blocks):
                x, state = block(x, state)
                if i == 1:
                    x = self.pool(x)
            return self.head(self.dropout(x.reshape(-1), key=key)), state

    return eqx.nn.make_with_state(Network)()


def equinox_step(eqx: Any, tx: Any) -> Callable[..., Any]:
    """Returns a train step (batch, model, state, opt_state, key), which returns loss and these."""

    def loss_fn(model: Any, state: Any, key: jax.Array, batch: Any) -> Any:
        images, labels = batch
        keys = jax.random.split(key, len(images))
        forward = jax.vmap(model, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))
        logits, state = forward(images, state, keys)
        return loss_of(logits, labels), state

    def train_step(batch: Any, model: Any, state: Any, opt_state: Any, key: jax.Array) -> Any:
        key, now = jax.random.split(key)
        gradient = eqx.filter_value_and_grad(loss_fn, has_aux=True)
        (loss, state), grads = gradient(model, state, now, batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = tx.update(grads, opt_state, params)
        return loss, eqx.apply_updates(model, updates), state, opt_state, key

    return train_step
