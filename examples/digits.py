"""Learns to read handwritten digits; the shortest whole training program.

A small convolutional network with batch normalisation and dropout learns the 1,797 digits of 8 x 8
pixels that come with scikit-learn; every fifth digit is held out for testing. Stop it as you like:
the same command goes on where it was, to the same numbers as a run that was never stopped.

    python examples/digits.py
    python examples/digits.py --seed 1 --epochs 10 --out runs/short

It leaves `curves.png` (learning curves), `confusion.png`, `metrics.csv` and checkpoints in `--out`.
"""

import argparse
import os
from pathlib import Path

# A resumed run repeats an uninterrupted one to the bit, so a GPU must not choose its kernels by
# timing them, nor add in an order that changes. JAX reads this when it is imported.
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft import train

CLASSES, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 10, 64, 4e-3, 1e-3
Digits = tuple[np.ndarray, np.ndarray]


def load_digits(limit: int | None = None) -> tuple[Digits, Digits]:
    """Returns (images, labels) for training and for testing; every fifth digit is for testing.

    Images are float32 of shape (count, 8, 8, 1) from 0 to 1, labels int32.
    """
    import sklearn.datasets

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = (images[:limit].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    labels = labels[:limit].astype(np.int32)
    test = np.arange(len(labels)) % 5 == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


def shift(images: jax.Array, rngs: nnx.Rngs) -> jax.Array:
    """Moves each image by up to one pixel in each direction; what comes in is black."""
    offsets = rngs.shift.randint((len(images), 2), 0, 3)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    cut = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (8, 8, 1))  # noqa: E731
    return jax.vmap(cut)(padded, offsets)


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


def loss_fn(model: Reader, images: jax.Array, labels: jax.Array):
    logits = model(images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), {"loss": losses.mean(), "accuracy": (logits.argmax(-1) == labels).mean()}


@nnx.jit
def train_step(model: Reader, optimizer: nnx.Optimizer, rngs: nnx.Rngs, batch):
    images, labels = batch
    grads, figures = nnx.grad(loss_fn, has_aux=True)(model, shift(images, rngs), labels)
    optimizer.update(model, grads)
    return figures


@nnx.jit
def test_step(model: Reader, images: jax.Array, labels: jax.Array):
    return loss_fn(model, images, labels)[1]


def learn(seed: int, epochs: int, limit: int | None, out: Path) -> None:
    """Trains, or goes on with training; leaves pictures in the end."""
    train_set, test_set = load_digits(limit)
    data = train.Loader(train_set, BATCH_SIZE, seed=seed)
    rngs = nnx.Rngs(seed)
    model = Reader(rngs=rngs)
    rate = optax.cosine_onecycle_schedule(epochs * len(data), LEARNING_RATE)
    tx = optax.adamw(rate, weight_decay=WEIGHT_DECAY)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    run = train.Run(
        out,
        state={"model": model, "optimizer": optimizer, "rngs": rngs},
        data=data,
        steps=epochs * len(data),
        save_every=len(data),
        log_every=len(data),
        sinks=[train.Bar(), train.CSV(), train.Plot()],
        facts={"seed": seed, "epochs": epochs, "limit": limit},
    )
    for batch in run:
        run.log(train_step(model, optimizer, rngs, batch))
        if run.every(len(data)):
            model.eval()
            run.log(test_step(model, *test_set), prefix="test/")
            model.train()
    model.eval()
    readings = np.asarray(nnx.jit(Reader.__call__)(model, test_set[0])).argmax(-1)
    plot_confusion(readings, test_set[1], out / "confusion.png")
    wrong = (readings != test_set[1]).sum()
    print(f"{1 - wrong / len(readings):.2%} of the test digits read, {wrong} wrong; see {out}")


def plot_confusion(readings: np.ndarray, labels: np.ndarray, file: Path) -> None:
    """Draws how often each digit was read as each."""
    from matplotlib.figure import Figure

    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels, readings), 1)
    axes = (figure := Figure(layout="tight")).subplots()
    axes.imshow(np.log1p(counts), cmap="Blues")
    for row, column in zip(*counts.nonzero(), strict=True):
        color = "white" if np.log1p(counts[row, column]) > np.log1p(counts.max()) / 2 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=color)
    axes.set(title="Test digits", xlabel="read as", ylabel="is")
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES))
    figure.savefig(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learns to read handwritten digits.")
    parser.add_argument("--seed", type=int, default=0, help="decides all randomness")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, help="use only so many digits, to try it quickly")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="where to write")
    learn(**vars(parser.parse_args()))
