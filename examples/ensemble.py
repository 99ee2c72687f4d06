"""Eight models at once: one `vmap`ped constructor, one `vmap`ped step, against one after the other.

Small networks learn a noisy sine, of which some stretches are not seen. Where the data ends they
differ: their spread says how sure they are. All of them are one Module, whose Variables have an
axis for the models in front. Then the same networks are trained one after the other.

    python examples/ensemble.py
    python examples/ensemble.py --models 32 --steps 500

It leaves `ensemble.png` in `--out`.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx


class Network(nnx.Module):
    """(batch, 1) to (batch, 1)."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(1, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.out = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jnp.tanh(self.second(jnp.tanh(3 * self.first(x)))))


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y, of shape (120, 1); nothing is known beside and between the two stretches."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-2.5, -0.8, 60), rng.uniform(0.4, 2.2, 60)])[:, None]
    return x.astype(np.float32), (np.sin(3 * x) + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


def make(key: jax.Array, steps: int) -> tuple[Network, nnx.Optimizer[Network]]:
    model = Network(rngs=nnx.Rngs(key))
    rate = optax.cosine_decay_schedule(3e-3, steps)
    return model, nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)


def step(model: Network, optimizer: nnx.Optimizer[Network], x: jax.Array, y: jax.Array):
    loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
    optimizer.update(model, grads)
    return loss


make_all = nnx.vmap(make, in_axes=(0, None))
step_of_one = nnx.jit(step)
step_of_all = nnx.jit(nnx.vmap(step, in_axes=(0, 0, None, None)))


def train(step, model: Network, optimizer: nnx.Optimizer[Network], data, steps: int):
    """Makes steps; returns the last loss, and the seconds of all but the first, which compiles."""
    jax.block_until_ready(step(model, optimizer, *data))
    start = time.perf_counter()
    for _ in range(steps - 1):
        loss = step(model, optimizer, *data)
    jax.block_until_ready(loss)
    return loss, time.perf_counter() - start


def plot(model: Network, x: np.ndarray, y: np.ndarray, file: Path) -> None:
    """Draws what the models say, their mean, and how far they are from each other."""
    from matplotlib.figure import Figure

    line = jnp.linspace(-4, 4, 200)[:, None]
    found = np.asarray(nnx.vmap(lambda model, x: model(x), in_axes=(0, None))(model, line))[..., 0]
    mean, spread, at = found.mean(0), found.std(0), np.asarray(line[:, 0])
    axes = (figure := Figure(layout="tight")).subplots()
    axes.plot(at, found.T, color="C0", alpha=0.3, linewidth=0.8)
    axes.fill_between(at, mean - 2 * spread, mean + 2 * spread, color="C0", alpha=0.15)
    axes.plot(at, mean, color="C0", label=f"mean of {len(found)} models, ± 2 deviations")
    axes.plot(at, np.sin(3 * at), color="gray", linestyle="--", label="sin 3x")
    axes.scatter(x, y, s=8, color="C1", label="data")
    axes.set(xlabel="x", ylabel="y", ylim=(-3, 3))
    axes.legend(loc="upper center")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains several models at once.")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/ensemble"))
    options = parser.parse_args()
    data = make_data(options.seed)
    keys = jax.random.split(jax.random.key(options.seed), options.models)

    models, optimizers = make_all(keys, options.steps)
    losses, together = train(step_of_all, models, optimizers, data, options.steps)
    alone = [train(step_of_one, *make(key, options.steps), data, options.steps) for key in keys]
    plot(models, *data, options.out / "ensemble.png")
    apart, found = sum(time for _, time in alone), np.array([loss for loss, _ in alone])
    print(
        f"{options.models} models, {options.steps} steps: {together:.1f} s at once, {apart:.1f} s "
        f"one after the other, {apart / together:.1f} times as long\n"
        f"mean loss {losses.mean():.5f} and {found.mean():.5f}; see {options.out}"
    )


if __name__ == "__main__":
    main()
