"""A language model in five minutes: it learns Python from the source of Python's own library.

A GPT on bytes (pre-norm blocks in one `Stack`, rotary attention, RMSNorm, one table of embeddings
for the first and the last layer) reads the standard library, which every machine has. Every
fiftieth file or so is held out. How many bits the model needs for a byte of it is compared with a
bigram model of the same training text, and with what `xz -9e` makes of the held-out files. Then it
writes some Python of its own, byte by byte, with a cache of keys and values.

    python examples/language_model.py
    python examples/language_model.py --steps 100 --width 64 --out runs/small
    python examples/language_model.py --lora ~/my_project    # after the first: goes on with that

Stop it as you like: the same command goes on where it was. It leaves `bits.png`, `sample.txt`,
`metrics.csv` and checkpoints in `--out`. `--lora FOLDER` leaves the model as it is and trains
low-rank adapters on the `.py` files of a folder (`.txt` and `.md` if it has none).
"""

import argparse
import functools
import hashlib
import lzma
import sysconfig
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft import train

BATCH, ORDERS, ROWS = 16, 4, 1 << 14
NO_SOURCE = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
PROMPT = b"def read_lines(path):\n    "


# -- text


def read_text(folder: Path, kinds: tuple[str, ...] = ("*.py",)) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bytes of the files in a folder: those to learn from, and those held out."""
    learnt, held_out = [], []
    if not folder.is_dir():
        raise SystemExit(f"{folder} is no folder: give one with files such as {kinds[0]}")
    for file in sorted(file for kind in kinds for file in folder.rglob(kind)):
        name = file.relative_to(folder)
        if NO_SOURCE.isdisjoint(name.parts) and file.is_file():
            chosen = held_out if zlib.crc32(name.as_posix().encode()) % 50 == 0 else learnt
            chosen.append(file.read_bytes())
    parts = [np.frombuffer(b"".join(files), np.uint8) for files in (learnt, held_out)]
    if not (held_out and learnt):  # a small folder: the end of it
        text = np.concatenate(parts)
        parts = np.split(text, [len(text) * 9 // 10])
    return parts[0], parts[1]


def windows(text: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Returns pieces of a text, of shape (count, length + 1): what is read, and what comes next."""
    if len(text) <= length:
        raise SystemExit(f"{len(text)} bytes of text are too few: there must be {length + 1}")
    return np.lib.stride_tricks.sliding_window_view(text, length + 1)[::stride]


def bits_of_xz(text: np.ndarray) -> float:
    return 8 * len(lzma.compress(text.tobytes(), preset=9 | lzma.PRESET_EXTREME)) / len(text)


def bits_of_bigrams(learnt: np.ndarray, held_out: np.ndarray) -> float:
    """Returns the bits for a byte when each is guessed from the one before."""
    counts = np.full((256, 256), 0.1)
    np.add.at(counts, (learnt[:-1], learnt[1:]), 1)
    chances = counts / counts.sum(1, keepdims=True)
    return float(-np.log2(chances[held_out[:-1], held_out[1:]]).mean())


# -- model


class Block(nnx.Module):
    """Attention and a perceptron, each normalised before: (batch, length, width) to the same."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        attend = functools.partial(nnx.dot_product_attention_with_rope, rope=nnx.RoPE())
        self.first_norm = nnx.RMSNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            4, width, use_bias=False, attention_fn=attend, decode=False, rngs=rngs
        )
        self.second_norm = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.first_norm(x), is_causal=True)
        return x + self.down(nnx.relu(self.up(self.second_norm(x))) ** 2)


class ByteGPT(nnx.Module):
    """Bytes of shape (batch, length) to logits of the next one, (batch, length, 256).

    A byte says little, so it comes with the 1 to `ORDERS` bytes before it, each such group as a row
    of a table that it is hashed into (Pagnoni et al., 2024, https://arxiv.org/abs/2412.09871).
    """

    def __init__(self, width: int, depth: int, *, rngs: nnx.Rngs):
        small = nnx.initializers.normal(0.02)
        self.embed = nnx.Embed(256, width, embedding_init=nnx.initializers.normal(0.1), rngs=rngs)
        self.groups = [
            nnx.Embed(ROWS, width, embedding_init=small, rngs=rngs) for _ in range(ORDERS)
        ]
        self.blocks = nnx.Stack(lambda rngs: Block(width, rngs=rngs), depth, rngs=rngs, unroll=True)
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = self.embed  # the same object: one table, which is saved and trained once

    def __call__(self, tokens: jax.Array, before: jax.Array | None = None) -> jax.Array:
        """`before` are the ORDERS bytes in front of the first, of shape (batch, ORDERS)."""
        if before is None:
            before = jnp.zeros((len(tokens), ORDERS), tokens.dtype)
        whole = jnp.concatenate([before, tokens], axis=1).astype(jnp.uint32)
        x, code = self.embed(tokens.astype(jnp.int32)), whole[:, ORDERS:]
        for i, table in enumerate(self.groups):
            code = code * jnp.uint32(0x9E3779B1) + whole[:, ORDERS - 1 - i : -1 - i] + 1
            mixed = code * jnp.uint32(0x85EBCA6B)
            x = x + table(((mixed ^ (mixed >> 15)) % ROWS).astype(jnp.int32))
        return self.head.attend(self.norm(self.blocks(x)))


def losses(model: ByteGPT, window: jax.Array) -> jax.Array:
    """Returns the bits that each byte takes, of shape (batch, length)."""
    logits = model(window[:, :-1])
    labels = window[:, 1:].astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels) / np.log(2)


@nnx.jit
def train_step(learner: train.Learner[ByteGPT], window: jax.Array):
    bits, norms = learner.step(lambda model, window: losses(model, window).mean(), window)
    return {"bits": bits, **norms}


@nnx.jit
def bits_in_window(model: ByteGPT, window: jax.Array) -> jax.Array:
    return losses(model, window)


def bits_of_model(model: ByteGPT, text: np.ndarray, length: int, every: int = 1) -> float:
    """Returns the bits for a byte, with length / 2 in front or more, of every n-th part."""
    found = windows(text, length, length // 2 * every)
    found = found[: len(found) // BATCH * BATCH or None]
    batches = found.reshape(-1, min(BATCH, len(found)), length + 1)
    return float(np.mean([bits_in_window(model, batch)[:, -length // 2 :] for batch in batches]))


@nnx.jit
def write_byte(decoder: ByteGPT, rngs: nnx.Rngs, before: jax.Array, token: jax.Array) -> jax.Array:
    logits = decoder(token[None, None], before[None])[0, 0]
    return rngs.sample.categorical(logits / 0.7).astype(jnp.uint8)


def write(model: ByteGPT, prompt: bytes, count: int, seed: int) -> bytes:
    """Goes on with a text; each byte costs one step, as keys and values are kept."""
    length = len(prompt) + count
    decoder = nnx.view(model, decode=True, batch_size=1, max_length=length)
    text, rngs = list(bytes(ORDERS) + prompt), nnx.Rngs(seed)
    for i in range(length - 1):
        before = np.array(text[i : i + ORDERS], np.uint8)
        new = write_byte(decoder, rngs, before, np.uint8(text[i + ORDERS]))
        if i + ORDERS + 1 == len(text):
            text.append(int(new))
    return bytes(text[ORDERS:])


# -- training


def make_learner(options: argparse.Namespace) -> train.Learner[ByteGPT]:
    rngs = nnx.Rngs(options.seed)
    model = ByteGPT(options.width, options.depth, rngs=rngs)
    return train.Learner(model, rule(options.steps, 4e-3))


def rule(steps: int, peak: float) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps, peak / 20)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.01)
    )


def learn(learner: train.Learner[ByteGPT], text, options: argparse.Namespace, out: Path) -> None:
    """Trains, or goes on with training; leaves a picture and a sample."""
    learnt, held_out = text
    data = train.Loader(windows(learnt, options.length, options.length), BATCH, seed=options.seed)
    run = train.Run(
        out,
        state={"learner": learner},
        data=data,
        steps=options.steps,
        save_every=100,
        log_every=20,
        sinks=[train.Bar(), train.CSV()],
        facts={**vars(options), "out": "", "text": hashlib.sha256(learnt.tobytes()).hexdigest()},
    )
    for window in run:
        run.log(train_step(learner, window))
        if run.every(100):
            found = bits_of_model(learner.model, held_out, options.length, every=16)
            run.log({"bits": found}, prefix="held out/")
    bits = {
        "this model": bits_of_model(learner.model, held_out, options.length),
        "xz -9e": bits_of_xz(held_out),
        "bigrams": bits_of_bigrams(learnt, held_out),
    }
    print(f"bits for a byte of {len(held_out):,} bytes held out, of {len(learnt):,} to learn from")
    for name, value in bits.items():
        print(f"  {name:<12}{value:.3f}")
    plot(run.history, bits, out / "bits.png")
    sample = write(learner.model, PROMPT, options.write, options.seed).decode(errors="replace")
    (out / "sample.txt").write_text(sample, encoding="utf-8")
    print(f"\n{sample}\n\nsee {out}")


def plot(history: train.History, bits: dict[str, float], file: Path) -> None:
    """Draws the learning curves, and what others need."""
    from matplotlib.figure import Figure

    axes = (figure := Figure(layout="tight")).subplots()
    for name, label in (("bits", "learnt"), ("held out/bits", "held out")):
        axes.plot(*zip(*history[name].items(), strict=True), label=label)
    for name, value in list(bits.items())[1:]:
        axes.axhline(value, color="gray", linestyle="--")
        axes.annotate(name, (0, value), va="bottom", color="gray")
    axes.set(xlabel="step", ylabel="bits for a byte", ylim=(0, 6))
    axes.legend()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description="Learns Python from Python's own library.")
    parser.add_argument("--seed", type=int, default=0, help="decides all randomness")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--length", type=int, default=128, help="how many bytes it sees")
    parser.add_argument("--write", type=int, default=400, help="how many bytes it writes")
    parser.add_argument("--text", type=Path, help="a folder to learn from instead")
    parser.add_argument("--lora", type=Path, help="a folder to go on with, by adapters")
    parser.add_argument("--lora-steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("runs/language_model"))
    options = parser.parse_args()
    folder, adapt, steps = options.text, options.lora, options.lora_steps
    del options.lora, options.lora_steps, options.text

    learner = make_learner(options)
    learn(learner, read_text(folder or Path(sysconfig.get_path("stdlib"))), options, options.out)
    if adapt is None:
        return
    text = read_text(adapt)
    if not len(text[0]):
        text = read_text(adapt, ("*.txt", "*.md"))
    before = bits_of_model(learner.model, text[1], options.length)
    nnx.lora(learner.model, nnx.PathContains("blocks"), rank=8, rngs=nnx.Rngs(options.seed))
    options.steps = steps
    adapters = train.Learner(learner.model, rule(steps, 4e-3), wrt=nnx.LoRAParam)
    learn(adapters, text, options, options.out / "lora")
    print(f"of the files in {adapt}, before it had seen them, {before:.3f}")


if __name__ == "__main__":
    main()
