"""The loss of a large vocabulary and its gradients: bytes and time against logits in memory.

Two last layers: GPT-2's, a tied table of 50257 × 768, and Llama 3's, a kernel of 4096 × 128256. The
bytes are what the programs of the full sizes need beside their arguments and results, as the
compiler says; nothing of that size is run. Times are of fewer tokens, and of Llama 3 with fewer
features, on whatever device there is.

`nnx.linear_cross_entropy` is to take at most 1.1 times the time of the plain way, for a fraction of
its memory.

    python benchmarks/cross_entropy.py            # five minutes
    python benchmarks/cross_entropy.py --quick    # half a minute, small vocabularies
    python benchmarks/cross_entropy.py --gpu      # a train step of GPT-2 (124 M), batch 16 × 1024
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import gpt2_step
import harness
import jax
import jax.numpy as jnp
import optax
from harness import Samples, Variant

import weft as nnx

PLAIN, TWIN = "plain", "plain, again"
CHUNKED, CUT, EACH = "chunked", "chunked, vocabulary too", "chunked, each loss"
BUDGET = 1.1
Loss = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A last layer and how many tokens it gets; `transposed` as in the loss."""

    name: str
    tokens: int
    features: int
    vocabulary: int
    dtype: Any
    transposed: bool

    @property
    def shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        kernel = (self.features, self.vocabulary)
        kernel = kernel[::-1] if self.transposed else kernel
        return tuple(
            jax.ShapeDtypeStruct(shape, dtype)
            for shape, dtype in (
                ((self.tokens, self.features), self.dtype),
                (kernel, self.dtype),
                ((self.tokens,), jnp.int32),
            )
        )

    def arrays(self) -> tuple[jax.Array, ...]:
        hidden, kernel, labels = self.shapes
        draw = lambda i, x: jax.random.normal(jax.random.key(i), x.shape, x.dtype)  # noqa: E731
        tokens = jnp.arange(labels.shape[0], dtype=labels.dtype) * 7 % self.vocabulary
        return draw(0, hidden), draw(1, kernel) * 0.02, tokens


def plain(hidden: jax.Array, kernel: jax.Array, labels: jax.Array, transposed: bool) -> jax.Array:
    """The usual way, with logits in float32."""
    kernel = kernel.T if transposed else kernel
    logits = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def ways(layer: Layer) -> dict[str, Loss]:
    """Returns functions of hidden, kernel and labels to loss and gradients, compiled."""

    def chunked(**options: Any) -> Loss:
        def loss(*args: Any) -> jax.Array:
            return nnx.linear_cross_entropy(*args, transposed=layer.transposed, **options).mean()

        return loss

    losses = {
        PLAIN: lambda *args: plain(*args, layer.transposed),
        CHUNKED: chunked(),
        CUT: chunked(vocab_chunk_size=-(-layer.vocabulary // 8)),
        EACH: chunked(reduction="none"),
    }
    return {name: jax.jit(jax.value_and_grad(loss, (0, 1))) for name, loss in losses.items()}


def temporary(layer: Layer) -> dict[str, int]:
    """Returns the bytes that the programs need beside arguments and results."""
    return {
        name: way.lower(*layer.shapes).compile().memory_analysis().temp_size_in_bytes
        for name, way in ways(layer).items()
    }


def variants(layer: Layer) -> list[Variant]:
    arrays = layer.arrays()
    found = ways(layer)
    found[TWIN] = found[PLAIN]
    return [Variant(name, lambda way=way: way(*arrays)) for name, way in found.items()]


def sizes(quick: bool) -> tuple[list[Layer], list[Layer]]:
    """Returns whose bytes and whose times are found."""
    if quick:
        small = [
            Layer("GPT-2, a tenth", 2048, 64, 5000, jnp.float32, True),
            Layer("Llama 3, a tenth", 2048, 64, 12800, jnp.float32, False),
        ]
        return small, small
    llama = (4096, 128256)
    return [
        Layer("GPT-2, 16 × 1024 tokens", 16384, 768, 50257, jnp.float32, True),
        Layer("GPT-2, 16 × 1024 tokens, bfloat16", 16384, 768, 50257, jnp.bfloat16, True),
        Layer("Llama 3, 8192 tokens", 8192, *llama, jnp.float32, False),
        Layer("Llama 3, 8192 tokens, bfloat16", 8192, *llama, jnp.bfloat16, False),
    ], [
        Layer("GPT-2, 2048 tokens", 2048, 768, 50257, jnp.float32, True),
        Layer("Llama 3, 1024 tokens, 512 features", 1024, 512, 128256, jnp.float32, False),
    ]


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f}" if count >= 1e7 else f"{count / 1e6:.1f}"


def memory_rows(name: str, found: dict[str, int]) -> list[list[str]]:
    """Returns the lines of the table of bytes for one layer."""
    return [
        [name, way, megabytes(count), f"{count / found[PLAIN]:.2f}"] for way, count in found.items()
    ]


def time_rows(name: str, samples: Samples) -> list[list[str]]:
    """Returns the lines of the table of times for one layer."""
    rows = []
    for way, seconds in samples.items():
        ratio = harness.net_ratio(samples, way, PLAIN, TWIN)
        judged = way == CHUNKED
        budget = f"{BUDGET} {harness.verdict(ratio.value <= BUDGET)}" if judged else ""
        shown = str(ratio) if way not in (PLAIN, TWIN) else "1"
        rows.append([name, way, harness.duration(harness.median(seconds)), shown, budget])
    return rows


def train_steps(size: gpt2_step.Size, options: Any) -> str:
    """Measures a train step with either loss; returns a table."""
    steps = {name: gpt2_step.Step(size, loss) for name, loss in gpt2_step.LOSSES.items()}
    peaks = {name: step.peak() for name, step in steps.items()}
    first, second = gpt2_step.LOSSES
    named = {first: PLAIN, second: CHUNKED}
    made = [Variant(named[name], step) for name, step in steps.items()]
    made.append(Variant(TWIN, steps[first]))
    samples = harness.measure(made, options, 1.0)
    rows = []
    for name, peak in peaks.items():
        ratio = harness.net_ratio(samples, named[name], PLAIN, TWIN)
        seconds = harness.duration(harness.median(samples[named[name]]))
        rows.append([name, megabytes(peak), f"{peak / peaks[first]:.2f}", seconds, str(ratio)])
    header = ["loss", "peak MB", "÷ plain", "a step", "÷ plain (95%)"]
    title = (
        f"Train step of GPT-2, {size.parameters() / 1e6:.0f} M parameters, batch {size.batch} × "
        f"{size.length}, bfloat16"
    )
    return f"{title}.\n\n{harness.table(header, rows)}"


def main(arguments: list[str] | None = None) -> None:
    parser = harness.make_parser(__doc__, full=7, quick=3)
    parser.add_argument("--gpu", action="store_true", help="a whole train step of GPT-2 instead")
    options = harness.read_options(parser, arguments)
    if options.gpu:
        size = gpt2_step.TINY if options.quick else gpt2_step.Size()
        harness.publish("Cross entropy, a train step", train_steps(size, options), options)
        return
    of_memory, of_time = sizes(options.quick)
    bytes_of = {layer.name: temporary(layer) for layer in of_memory}
    samples = {layer.name: harness.measure(variants(layer), options, 0.1) for layer in of_time}
    memory = harness.table(
        ["", "way", "temporary MB", "÷ plain"],
        [row for name, found in bytes_of.items() for row in memory_rows(name, found)],
    )
    times = harness.table(
        ["", "way", "time", "÷ plain (95%)", "budget"],
        [row for name, found in samples.items() for row in time_rows(name, found)],
    )
    title = "Loss and gradients of a last layer"
    harness.publish("Cross entropy", f"{title}.\n\n{memory}\n\n{times}", options)
    bars = {
        name: {way: count / found[PLAIN] for way, count in found.items()}
        for name, found in bytes_of.items()
    }
    harness.plot_bars(options.out / "cross_entropy.png", title, "memory, × plain", bars, log=False)


if __name__ == "__main__":
    sys.exit(main())
