"""Learns to read handwritten digits; the shortest whole training program.

A small convolutional network with batch normalisation and dropout learns the 1,797 digits of 8 x 8
pixels that come with scikit-learn; every fifth digit is held out for testing. After each epoch the
model, the optimizer, the random streams and the history are written to one checkpoint file, from
which `--resume` goes on to the same numbers as a run that was never stopped.

    python examples/digits.py
    python examples/digits.py --seed 1 --epochs 10 --out runs/short
    python examples/digits.py --resume

It leaves `digits.png` (learning curves and confusion matrix) and `checkpoint.weft` in `--out`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# A resumed run repeats an uninterrupted one to the bit, so a GPU must not choose its kernels by
# timing them, nor add in an order that changes.
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft.tools import checkpoint

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """What decides the numbers of a run; a run is resumed with the one it was started with."""

    seed: int = 0
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 1e-3
    limit: int | None = None


# -- data


def load_digits(limit: int | None = None) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Returns (images, labels) for training and for testing; every fifth digit is for testing.

    Images are float32 of shape (count, 8, 8, 1) from 0 to 1, labels int32.
    """
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)[:limit]
    labels = digits.target.astype(np.int32)[:limit]
    test = np.arange(len(labels)) % 5 == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


def batches(
    images: np.ndarray, labels: np.ndarray, config: Config, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of an epoch, in an order that depends on seed and epoch alone."""
    order = np.random.default_rng([config.seed, epoch]).permutation(len(labels))
    for i in range(steps_per_epoch(len(labels), config)):
        chosen = order[i * config.batch_size : (i + 1) * config.batch_size]
        yield images[chosen], labels[chosen]


def steps_per_epoch(count: int, config: Config) -> int:
    """Returns how many whole batches there are; the rest is left for another epoch."""
    return count // config.batch_size


def shift(images: jax.Array, rngs: nnx.Rngs) -> jax.Array:
    """Moves each image by up to one pixel in each direction; what comes in is black."""
    offsets = rngs.shift.randint((len(images), 2), 0, 3)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    cut = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (8, 8, 1))  # noqa: E731
    return jax.vmap(cut)(padded, offsets)


# -- the model


class Block(nnx.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(inputs, outputs, kernel_size=(3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x)))


class Reader(nnx.Module):
    """Images of shape (batch, 8, 8, 1) to logits of shape (batch, 10)."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.blocks = [Block(1, 32, rngs=rngs), Block(32, 32, rngs=rngs), Block(32, 64, rngs=rngs)]
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(4 * 4 * 64, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 1:
                x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = self.dropout(x.reshape(len(x), -1))
        return self.head(x)


def loss_fn(model: Reader, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model(images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), logits


@nnx.jit
def train_step(
    model: Reader,
    optimizer: nnx.Optimizer,
    metrics: nnx.MultiMetric,
    rngs: nnx.Rngs,
    images: jax.Array,
    labels: jax.Array,
) -> None:
    images = shift(images, rngs)
    (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, images, labels)
    optimizer.update(model, grads)
    metrics.update(loss=loss, logits=logits, labels=labels)


@nnx.jit
def test_step(
    model: Reader, metrics: nnx.MultiMetric, images: jax.Array, labels: jax.Array
) -> None:
    loss, logits = loss_fn(model, images, labels)
    metrics.update(loss=loss, logits=logits, labels=labels)


# -- the run


def train(config: Config, out: Path, *, resume: bool) -> list[dict[str, float]]:
    """Trains, leaving a checkpoint after each epoch, and returns the history."""
    train_set, test_set = load_digits(config.limit)
    if len(train_set[1]) < config.batch_size:
        raise SystemExit(f"--limit {config.limit} leaves less than one batch to train on")
    steps = config.epochs * steps_per_epoch(len(train_set[1]), config)
    rate = optax.cosine_onecycle_schedule(steps, config.learning_rate)

    rngs = nnx.Rngs(config.seed)
    model = Reader(rngs=rngs)
    tx = optax.adamw(rate, weight_decay=config.weight_decay)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    average = nnx.metrics.Average("loss")
    train_metrics = nnx.MultiMetric(loss=average, accuracy=nnx.metrics.Accuracy())
    test_metrics = nnx.MultiMetric(
        loss=nnx.metrics.Average("loss"),
        accuracy=nnx.metrics.Accuracy(),
        confusion=nnx.metrics.ConfusionMatrix(CLASSES),
    )

    file = out / "checkpoint.weft"
    saved = {"model": model, "optimizer": optimizer, "rngs": rngs, "confusion": test_metrics}
    history: list[dict[str, float]] = []
    if resume and file.exists():
        data = checkpoint.restore(file, saved)
        if data["config"] != dataclasses.asdict(config):
            raise SystemExit(
                f"{file} is of a run with other options, {data['config']}: give the same ones, or "
                "another --out"
            )
        history = data["history"]
        print(f"resumed after epoch {len(history)} of {config.epochs}", flush=True)

    with progress(config.epochs * steps_per_epoch(len(train_set[1]), config)) as show:
        for epoch in range(len(history), config.epochs):
            model.train()
            train_metrics.reset()
            for i, (images, labels) in enumerate(batches(*train_set, config, epoch)):
                train_step(model, optimizer, train_metrics, rngs, images, labels)
                if i % 5 == 0:  # reading a figure waits for the device
                    show.step(epoch, i, train_metrics)
            model.eval()
            test_metrics.reset()
            test_step(model, test_metrics, *test_set)
            history.append(figures(train_metrics, "train_") | figures(test_metrics, "test_"))
            out.mkdir(parents=True, exist_ok=True)
            state = {"config": dataclasses.asdict(config), "history": history}
            checkpoint.save(file, saved, state)
            show.epoch(epoch, history[-1])
    plot(history, np.asarray(test_metrics.confusion.compute()), out / "digits.png")
    return history
