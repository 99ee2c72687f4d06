"""What depth costs: tracing and compiling the train step of a transformer of L blocks.

Compared are a Python loop over the blocks (unrolled) and a loop that XLA sees (`nnx.scan`, and in
Weft `nnx.Stack`), written with Weft and with flax.nnx, and `jax.lax.scan` by hand. The math is the
same in all of them: causal attention and a two-layer perceptron before an Adam step.

Every measurement begins with empty caches, models are abstract, and rounds of all variants are
interleaved, so that what disturbs the machine disturbs all of them. Seconds are processor time of
all threads, which other programs disturb least. The table shows medians; the ratios below it are
medians over the rounds of ratios within a round, or for what has fewer rounds, of the medians.

    python benchmarks/depth.py            # tens of minutes: unrolled depth is slow to compile
    python benchmarks/depth.py --quick    # about a minute
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import harness
import jax
from depth_cases import (
    BATCH,
    HEADS,
    LENGTH,
    WIDTH,
    hand_step,
    nnx_step,
    scanned_class,
    stack_class,
    unrolled_class,
)

# -- measuring


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
      trace: processor seconds from the call to a jaxpr.
      compile: processor seconds from there to an executable.
      equations: of the jaxpr, those of inner ones included.
      temporary: bytes of temporary buffers of the executable.
      output: bytes of its outputs.
    """

    trace: float
    compile: float
    equations: int
    temporary: int
    output: int

    @property
    def total(self) -> float:
        return self.trace + self.compile


def equations(jaxpr: Any) -> int:
    """Counts the equations of a jaxpr and of all jaxprs inside it."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)

    def inner(x: Any) -> Iterator[Any]:
        if hasattr(x, "eqns") or hasattr(x, "jaxpr"):
            yield x
        elif isinstance(x, (tuple, list)):
            for part in x:
                yield from inner(part)

    return sum(
        1 + sum(equations(j) for p in e.params.values() for j in inner(p)) for e in jaxpr.eqns
    )


def measure(trace: Callable[[], Any]) -> Sample:
    jax.clear_caches()
    gc.collect()
    start = time.process_time()
    traced = trace()
    middle = time.process_time()
    compiled = traced.lower().compile()
    end = time.process_time()
    memory = compiled.memory_analysis()
    return Sample(
        middle - start,
        end - middle,
        equations(getattr(traced, "traced", traced).jaxpr),  # flax keeps the one of JAX inside
        memory.temp_size_in_bytes,
        memory.output_size_in_bytes,
    )


def variants() -> dict[tuple[str, str], Callable[[int], Callable[[], Any]]]:
    """Returns for (library, way) what makes the trace function of a depth."""
    import weft

    found: dict[tuple[str, str], Any] = {
        ("by hand", "scan"): hand_step,
        ("weft", "unrolled"): lambda depth: nnx_step(weft, unrolled_class, depth),
        ("weft", "scan"): lambda depth: nnx_step(weft, scanned_class, depth),
        ("weft", "Stack"): lambda depth: nnx_step(weft, stack_class, depth),
    }
    if flax := harness.peer("flax.nnx"):
        found["flax", "unrolled"] = lambda depth: nnx_step(flax, unrolled_class, depth)
        found["flax", "scan"] = lambda depth: nnx_step(flax, scanned_class, depth)
    return found


Samples = dict[tuple[str, str, int], list[Sample]]


def run(depths: list[int], rounds: int, unrolled_rounds: int, deepest: int) -> Samples:
    """Measures all variants; unrolled ones less often, and not beyond a depth."""
    samples: Samples = {}
    makers = variants()
    for make in makers.values():  # what only the first call of anything pays for
        measure(make(2))
    for i in range(max(rounds, unrolled_rounds)):
        for (library, way), make in makers.items():
            for depth in depths:
                is_unrolled = way == "unrolled"
                if i >= (unrolled_rounds if is_unrolled else rounds):
                    continue
                if is_unrolled and depth > deepest:
                    continue
                sample = measure(make(depth))
                samples.setdefault((library, way, depth), []).append(sample)
                print(f"round {i + 1}: {library} {way} {depth}: {sample.total:.2f} s", flush=True)
    return samples


def median(samples: list[Sample], name: str) -> float:
    return harness.median(getattr(sample, name) for sample in samples)


def ratio(samples: Samples, above: tuple, below: tuple, name: str = "total") -> str:
    """Returns the median over rounds of the ratio within each, else the ratio of the medians."""
    if above not in samples or below not in samples:
        return "-"
    if len(samples[above]) != len(samples[below]):
        return f"{median(samples[above], name) / median(samples[below], name):.3f}"
    figures = {key: [getattr(x, name) for x in samples[key]] for key in (above, below)}
    return f"{harness.ratio(figures, above, below):.2f}"


def report(samples: Samples, depths: list[int]) -> str:
    """Returns the table of all figures, and that of the ratios that matter."""
    rows = [
        [
            library,
            way,
            depth,
            f"{median(found, 'trace'):.2f}",
            f"{median(found, 'compile'):.2f}",
            found[0].equations,
            f"{found[0].temporary / 1e6:.2f}",
            f"{found[0].output / 1e6:.2f}",
        ]
        for (library, way, depth), found in sorted(samples.items())
    ]
    header = ["library", "way", "L", "trace s", "compile s", "equations"]
    figures = harness.table([*header, "temporary MB", "outputs MB"], rows)
    shallow, deep = depths[0], depths[-1]
    stack, hand = ("weft", "Stack", deep), ("by hand", "scan", deep)
    below = {
        f"Stack at L = {shallow}": ("weft", "Stack", shallow),
        "lax.scan by hand": hand,
        "nnx.scan, flax": ("flax", "scan", deep),
        **{f"unrolled, {name}": (name, "unrolled", deep) for name in ("weft", "flax")},
    }
    ratios = [[name, ratio(samples, stack, key)] for name, key in below.items()]
    itself = ratio(samples, hand, ("by hand", "scan", shallow))
    ratios += [
        ["temporary bytes of lax.scan by hand", ratio(samples, stack, hand, "temporary")],
        ["output bytes of lax.scan by hand", ratio(samples, stack, hand, "output")],
    ]
    return (
        f"Width {WIDTH}, {HEADS} heads, batch {BATCH}, length {LENGTH}, float32.\n\n{figures}\n\n"
        f"Trace and compile of Stack at L = {deep}, divided by those of others (lax.scan by hand, "
        f"divided by itself at L = {shallow}: {itself}):\n\n"
        f"{harness.table(['below', 'ratio'], ratios)}"
    )


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = harness.make_parser(__doc__, full=5, quick=1)
    parser.add_argument("--depths", type=int, nargs="+", help="L (default: 4 16 48 96)")
    parser.add_argument("--unrolled-rounds", type=int, default=1, help="of the unrolled models")
    parser.add_argument(
        "--deepest-unrolled", type=int, default=1 << 30, help="leave out deeper ones"
    )
    options = harness.read_options(parser, arguments)
    options.depths = sorted(options.depths or ([2, 8] if options.quick else [4, 16, 48, 96]))
    return options


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    samples = run(options.depths, options.rounds, options.unrolled_rounds, options.deepest_unrolled)
    harness.publish("Depth", report(samples, options.depths), options)
    bars = {
        f"L = {depth}": {
            f"{library}, {way}": median(found, "total")
            for (library, way, at), found in samples.items()
            if at == depth
        }
        for depth in options.depths
    }
    harness.plot_bars(options.out / "depth.png", "Trace and compile a train step", "s", bars)


if __name__ == "__main__":
    sys.exit(main())
