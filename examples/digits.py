"""Learns to read handwritten digits; the shortest whole training program.

A small convolutional network with batch normalisation and dropout learns the 1,797 digits of 8 x 8
pixels that come with scikit-learn; every fifth digit is held out for testing. After each epoch the
model, the optimizer, the random streams and the history are written to one checkpoint file, from
which `--resume` goes on to the same numbers as a run that was never stopped.

    python examples/digits.py
    python examples/digits.py --seed 1 --epochs 10 --out runs/short
    python examples/digits.py --resume

It leaves `digits.png` (learning curves and confusion matrix) and `checkpoint.safetensors` in
`--out`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A resumed run repeats an uninterrupted one to the bit, so a GPU must not choose its kernels by
# timing them, nor add in an order that changes. JAX reads this when it is imported.
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """What decides the numbers of a run; a run is resumed with the one it was started with."""

    seed: int = 0
    epochs: int = 20
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

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = (images[:limit].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    labels = labels[:limit].astype(np.int32)
    test = np.arange(len(labels)) % 5 == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


def batches(
    images: np.ndarray, labels: np.ndarray, config: Config, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of an epoch, in an order that depends on seed and epoch alone."""
    order = np.random.default_rng([config.seed, epoch]).permutation(len(labels))
    for start in range(0, len(order) - config.batch_size + 1, config.batch_size):
        chosen = order[start : start + config.batch_size]
        yield images[chosen], labels[chosen]


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
    model: Reader,
    metrics: nnx.MultiMetric,
    confusion: nnx.metrics.ConfusionMatrix,
    images: jax.Array,
    labels: jax.Array,
) -> None:
    loss, logits = loss_fn(model, images, labels)
    metrics.update(loss=loss, logits=logits, labels=labels)
    confusion.update(logits=logits, labels=labels)


# -- the run


class Display:
    """A progress bar with loss and accuracy in a terminal, one plain line per epoch elsewhere."""

    def __init__(self, epochs: int, steps: int):
        self.epochs, self.steps = epochs, steps
        self.bar: Any = None
        self.started = time.perf_counter()

    def __enter__(self) -> Display:
        if sys.stdout.isatty():
            from rich import progress

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=None),
                progress.TimeRemainingColumn(),
            )
            self.task = self.bar.add_task("compiling", total=self.epochs * self.steps)
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, epoch: int, step: int, metrics: nnx.MultiMetric) -> None:
        """Moves the bar; the figures are read now and then, since reading waits for the device."""
        if self.bar is not None and (step % 5 == 0 or step + 1 == self.steps):
            shown = figures(metrics)
            self.bar.update(
                self.task,
                completed=epoch * self.steps + step + 1,
                description=f"epoch {epoch + 1} loss {shown['loss']:.4f} "
                f"accuracy {shown['accuracy']:.2%}",
            )

    def epoch(self, epoch: int, record: dict[str, float]) -> None:
        """Writes the figures of an epoch."""
        line = (
            f"epoch {epoch + 1:>2}/{self.epochs}"
            f"  train loss {record['train_loss']:.4f} accuracy {record['train_accuracy']:7.2%}"
            f"  test loss {record['test_loss']:.4f} accuracy {record['test_accuracy']:7.2%}"
            f"  {time.perf_counter() - self.started:5.1f} s"
        )
        if self.bar is None:
            print(line, flush=True)
        else:
            self.bar.console.print(line, highlight=False)


def train(config: Config, out: Path, *, resume: bool) -> None:
    """Trains, leaving a checkpoint after each epoch and a picture at the end."""
    train_set, test_set = load_digits(config.limit)
    steps = len(train_set[1]) // config.batch_size  # what is left over waits for another epoch
    if not steps:
        raise SystemExit(f"--limit {config.limit} leaves less than one batch to train on")
    rngs = nnx.Rngs(config.seed)
    model = Reader(rngs=rngs)
    rate = optax.cosine_onecycle_schedule(config.epochs * steps, config.learning_rate)
    tx = optax.adamw(rate, weight_decay=config.weight_decay)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    train_metrics = nnx.MultiMetric(
        loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy()
    )
    test_metrics = nnx.MultiMetric(
        loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy()
    )
    confusion = nnx.metrics.ConfusionMatrix(CLASSES)

    file = out / "checkpoint.safetensors"
    saved = {"model": model, "optimizer": optimizer, "rngs": rngs, "confusion": confusion}
    history = restore(file, saved, config) if resume else []
    out.mkdir(parents=True, exist_ok=True)
    with Display(config.epochs, steps) as display:
        for epoch in range(len(history), config.epochs):
            model.train()
            train_metrics.reset()
            for step, (images, labels) in enumerate(batches(*train_set, config, epoch)):
                train_step(model, optimizer, train_metrics, rngs, images, labels)
                display.step(epoch, step, train_metrics)
            model.eval()
            test_metrics.reset()
            confusion.reset()
            test_step(model, test_metrics, confusion, *test_set)
            history.append(figures(train_metrics, "train_") | figures(test_metrics, "test_"))
            data = {"config": dataclasses.asdict(config), "history": history}
            nnx.save(file, meta=data, **saved)
            display.epoch(epoch, history[-1])
    plot(history, np.asarray(confusion.compute()), out / "digits.png")
    wrong = round((1 - history[-1]["test_accuracy"]) * len(test_set[1]))
    print(
        f"test accuracy {history[-1]['test_accuracy']:.2%}, {wrong} of {len(test_set[1])} wrong; "
        f"see {out / 'digits.png'}, continue from {file}"
    )


def restore(file: Path, saved: dict[str, Any], config: Config) -> list[dict[str, float]]:
    """Restores objects from a checkpoint, if there is one, and returns the history."""
    if not file.exists():
        print(f"no checkpoint at {file}: starting from the beginning", flush=True)
        return []
    found, own = nnx.load(file).meta["config"], dataclasses.asdict(config)
    if other := {name: found[name] for name in own if found[name] != own[name]}:
        raise SystemExit(f"{file} is of a run with {other}: give the same, or another --out")
    history = nnx.restore(file, **saved)["history"]
    print(f"resumed after epoch {len(history)} of {config.epochs}", flush=True)
    return history


def figures(metrics: nnx.MultiMetric, prefix: str = "") -> dict[str, float]:
    """Returns the figures of metrics as numbers, under names such as `test_loss`."""
    return {prefix + name: float(value) for name, value in metrics.compute().items()}


def plot(history: list[dict[str, float]], confusion: np.ndarray, file: Path) -> None:
    """Draws the learning curves and the confusion matrix."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (losses, accuracies, matrix) = plt.subplots(1, 3, figsize=(15, 4.6), dpi=110)
    epochs = range(1, len(history) + 1)
    for axes, name, scale in ((losses, "loss", 1), (accuracies, "accuracy", 100)):
        for part, style in (("train", "--"), ("test", "-")):
            values = [scale * record[f"{part}_{name}"] for record in history]
            axes.plot(epochs, values, style, label=part)
        axes.set(title=name.capitalize(), xlabel="epoch", xlim=(1, max(2, len(history))))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    losses.set_yscale("log")
    accuracies.set_ylabel("%")

    matrix.imshow(np.log1p(confusion), cmap="Blues")
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = "white" if np.log1p(count) > np.log1p(confusion.max()) / 2 else "black"
            matrix.text(column, row, f"{count:.0f}", ha="center", va="center", color=color)
    matrix.set(title="Test digits", xlabel="read as", ylabel="is")
    matrix.set_xticks(range(CLASSES))
    matrix.set_yticks(range(CLASSES))
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def main() -> None:
    defaults = Config()
    parser = argparse.ArgumentParser(description="Learns to read handwritten digits.")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="decides all randomness")
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="where to write")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--limit", type=int, help="use only so many digits, to try it quickly")
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, found {options.epochs}")
    config = Config(seed=options.seed, epochs=options.epochs, limit=options.limit)
    train(config, options.out, resume=options.resume)


if __name__ == "__main__":
    main()
