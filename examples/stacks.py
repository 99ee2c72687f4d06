"""A deep model in parts: several Stacks in a row, each of blocks of one kind.

A transformer learns to sort digits. Its stem is a narrow perceptron, its trunk is deep and has
attention, its head is a wide perceptron: blocks of three structures, so three Stacks. Each is
traced and compiled as one block, however deep it is.

    python examples/stacks.py
    python examples/stacks.py --depth 48 --steps 100

It leaves `stacks.png` in `--out`: how it learnt, and what each layer of the trunk is worth.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import weft as nnx

TOKENS, LENGTH, SEPARATOR = 10, 8, 10  # digits to sort; the prompt ends with a separator
NARROW, WIDE, HEADS = 32, 64, 4


class Perceptron(nnx.Module):
    """A residual perceptron, for each token alone: (..., width) to (..., width)."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(nnx.gelu(self.up(self.norm(x))))


class Transformer(nnx.Module):
    """Attention and a perceptron: (batch, length, WIDE) to the same."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.RMSNorm(WIDE, rngs=rngs)
        self.qkv = nnx.Linear(WIDE, 3 * WIDE, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(WIDE, WIDE, use_bias=False, rngs=rngs)
        self.perceptron = Perceptron(WIDE, rngs)

    def __call__(self, x: jax.Array, is_causal: bool) -> jax.Array:
        qkv = self.qkv(self.norm(x)).reshape(*x.shape[:-1], 3, HEADS, WIDE // HEADS)
        mixed = jax.nn.dot_product_attention(*jnp.unstack(qkv, axis=-3), is_causal=is_causal)
        return self.perceptron(x + self.out(mixed.reshape(x.shape)))


class Sorter(nnx.Module):
    """Tokens of shape (batch, length) to logits of the next one, (batch, length, TOKENS)."""

    def __init__(self, depth: int, *, rngs: nnx.Rngs):
        self.embed = nnx.Embed(TOKENS + 1, NARROW, rngs=rngs)
        self.position = nnx.Param(0.1 * rngs.params.normal((2 * LENGTH, NARROW)))
        # Blocks of another width or of another class cannot be in one Stack: put Stacks in a row,
        # with what changes the width between them.
        self.stem = nnx.Stack(lambda rngs: Perceptron(NARROW, rngs), 2, rngs=rngs)
        self.widen = nnx.Linear(NARROW, WIDE, rngs=rngs)
        self.trunk = nnx.Stack(Transformer, depth, rngs=rngs, remat=True)
        self.head = nnx.Stack(lambda rngs: Perceptron(WIDE, rngs), 2, rngs=rngs, unroll=True)
        self.logits = nnx.Linear(WIDE, TOKENS, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.stem(self.embed(tokens) + self.position[: tokens.shape[1]])
        x = self.trunk(self.widen(x), is_causal=True)  # further arguments: the same for all blocks
        return self.logits(self.head(x))


def sample(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Returns prompts with their sorted digits, and these digits alone, as int32 tokens."""
    digits = jax.random.randint(key, (batch, LENGTH), 0, TOKENS)
    answers = jnp.sort(digits)
    separator = jnp.full((batch, 1), SEPARATOR)
    return jnp.concatenate([digits, separator, answers[:, :-1]], axis=1), answers


@nnx.jit
def train_step(
    model: Sorter, optimizer: nnx.Optimizer, rngs: nnx.Rngs
) -> tuple[jax.Array, jax.Array]:
    tokens, answers = sample(rngs.data(), 64)

    def loss_fn(model: Sorter) -> tuple[jax.Array, jax.Array]:
        logits = model(tokens)[:, LENGTH:]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
        return losses.mean(), (logits.argmax(-1) == answers).mean()

    (loss, accuracy), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)
    return loss, accuracy


def plot(learnt: dict[int, float], without: list[float], file: Path) -> None:
    """Draws accuracies: by step, and with the attention of one layer left out."""
    from matplotlib.figure import Figure

    curve, bars = (figure := Figure(figsize=(9, 4), layout="tight")).subplots(1, 2, sharey=True)
    curve.plot(*zip(*learnt.items(), strict=True))
    curve.set(xlabel="step", ylabel="digits in the right place", ylim=(0, 1))
    bars.bar(range(len(without)), without)
    bars.set(xlabel="layer of the trunk whose attention is left out")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--depth", type=int, default=8, help="blocks of the trunk")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/stacks"))
    options = parser.parse_args()

    rngs = nnx.Rngs(0)
    model = Sorter(options.depth, rngs=rngs)
    optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)
    learnt: dict[int, float] = {}
    start = time.perf_counter()
    for step in range(1, options.steps + 1):
        loss, accuracy = train_step(model, optimizer, rngs)
        if step == 1:
            jax.block_until_ready(loss)
            print(f"compiled {options.depth} blocks in {time.perf_counter() - start:.1f} s")
        if step % 10 == 0 or step == options.steps:
            learnt[step] = float(accuracy)
        if step % 50 == 0 or step == options.steps:
            print(f"step {step:>4}  loss {loss:.4f}  accuracy {accuracy:7.2%}")

    # A Stack is also a list of layers. Their Variables are windows on the Stack's own.
    tokens, answers = sample(rngs.data(), 256)
    predict = nnx.jit(lambda model: (model(tokens)[:, LENGTH:].argmax(-1) == answers).mean())
    without = []
    for layer in model.trunk:
        kernel = layer.out.kernel[...]
        layer.out.kernel[...] = jnp.zeros_like(kernel)
        without.append(float(predict(model)))
        layer.out.kernel[...] = kernel
    print(f"all layers: {predict(model):7.2%}")
    print("without the attention of one:", ", ".join(f"{x:.0%}" for x in without))

    # Unrolled, the blocks are Modules of their own, for a change that is not for all of them.
    blocks = nnx.unstack(model.trunk)
    model.trunk = nnx.stack(blocks[:-1], remat=True)
    print(f"without the last one: {predict(model):7.2%}")
    plot(learnt, without, options.out / "stacks.png")
    print(f"see {options.out}")


if __name__ == "__main__":
    main()
