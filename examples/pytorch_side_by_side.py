"""The same training in PyTorch and in Weft, line by line: the same weights, the same batches.

A perceptron learns a noisy sine, a small convolutional network scikit-learn's handwritten digits.
Both libraries begin with PyTorch's weights, which `nnx.load_weights` reads as they are, and take
the same batches, so their curves lie on each other until rounding tells them apart.

    uv run --group torch examples/pytorch_side_by_side.py
    uv run --group torch examples/pytorch_side_by_side.py --steps 50 --out runs/short

It leaves `curves.png` in `--out`.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import weft as nnx

RATE = 3e-3
Batches = Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]


# -- models


class TorchPerceptron(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(1, 64)
        self.out = torch.nn.Linear(64, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))


class Perceptron(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(1, 64, rngs=rngs)
        self.out = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.tanh(self.hidden(x)))


class TorchReader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 16, 3, padding="same")
        self.second = torch.nn.Conv2d(16, 32, 3, padding="same")
        self.norm = torch.nn.LayerNorm(32)
        self.out = torch.nn.Linear(32, 10)

    def forward(self, x):  # (batch, channels, height, width)
        x = torch.nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        return self.out(self.norm(torch.relu(self.second(x)).mean((2, 3))))


class Reader(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.norm = nnx.LayerNorm(32, epsilon=1e-5, rngs=rngs)
        self.out = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):  # (batch, height, width, channels)
        x = nnx.max_pool(nnx.relu(self.first(x)), (2, 2), strides=(2, 2))
        return self.out(self.norm(nnx.relu(self.second(x)).mean((1, 2))))


# -- data


def sine(seed: int) -> Batches:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, (1024, 1)).astype(np.float32)
    return batches(x, np.sin(x) + 0.1 * rng.normal(size=x.shape).astype(np.float32), seed)


def digits(seed: int) -> Batches:
    import sklearn.datasets

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return batches((images.reshape(-1, 8, 8, 1) / 16).astype(np.float32), labels, seed)


def batches(x: np.ndarray, y: np.ndarray, seed: int) -> Batches:
    def draw(steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            chosen = rng.integers(0, len(x), 64)
            yield x[chosen], y[chosen]

    return draw


# -- training


def train_torch(model: torch.nn.Module, loss_fn, data: Batches, steps: int) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    losses = []
    for x, y in data(steps):
        x = torch.from_numpy(x)
        x = x.movedim(-1, 1) if x.ndim == 4 else x
        loss = loss_fn(model(x), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_weft(model: nnx.Module, loss_fn, data: Batches, steps: int) -> list[float]:
    optimizer = nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        loss, grads = nnx.value_and_grad(lambda model: loss_fn(model(x), y))(model)
        optimizer.update(model, grads)
        return loss

    return [float(step(model, optimizer, x, y)) for x, y in data(steps)]


def squares(found, wanted):
    return ((found - wanted) ** 2).mean()


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()


CASES = {
    "sine": (TorchPerceptron, Perceptron, squares, squares, sine),
    "digits": (TorchReader, Reader, torch.nn.functional.cross_entropy, cross_entropy, digits),
}


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description="The same training in PyTorch and in Weft.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pytorch_side_by_side"))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # these are too small for two

    figure = Figure(figsize=(10, 4), layout="tight")
    for axes, (name, case) in zip(figure.subplots(1, 2), CASES.items(), strict=True):
        make_theirs, make_ours, their_loss, our_loss, make_data = case
        theirs, ours, data = make_theirs(), make_ours(rngs=nnx.Rngs(0)), make_data(options.seed)
        nnx.load_weights(ours, {k: v.numpy() for k, v in theirs.state_dict().items()})
        curves, seconds = {}, {}
        for label, train, model, loss_fn in (
            ("PyTorch", train_torch, theirs, their_loss),
            ("Weft", train_weft, ours, our_loss),
        ):
            start = time.perf_counter()
            curves[label] = train(model, loss_fn, data, options.steps)
            seconds[label] = time.perf_counter() - start
        for (label, losses), style in zip(curves.items(), ("-", ":"), strict=True):
            axes.plot(losses, style, label=f"{label}, {seconds[label]:.1f} s")
        axes.set(title=name, xlabel="step", ylabel="loss", yscale="log")
        axes.legend()
        first, last = (curves["Weft"][i] / curves["PyTorch"][i] for i in (0, -1))
        print(
            f"{name}: {options.steps} steps, PyTorch {seconds['PyTorch']:.1f} s, Weft "
            f"{seconds['Weft']:.1f} s with compiling; last loss {curves['PyTorch'][-1]:.5f} and "
            f"{curves['Weft'][-1]:.5f}; ratio of the losses at first {first:.6f}, last {last:.4f}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "curves.png")
    print(f"see {options.out}")


if __name__ == "__main__":
    main()
