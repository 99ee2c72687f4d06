"""What the benchmarks share: measuring in rounds, comparing, and showing what was found.

A *variant* is one way to do a piece of work, a *round* measures each variant once, and *samples*
are seconds per call of each variant, one for each round. What disturbs the machine for a while
disturbs all variants of a round alike, so variants are compared by the ratio within a round, and
over the rounds by the median of these ratios. One variant is run twice, under two names: how far
it seems to differ from itself is the noise, by which the others' ratios are divided.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib
import itertools
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
Samples = dict[str, list[float]]


# -- measuring


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to do a piece of work.

    Attributes:
      name: what the tables call it.
      call: does the work once; returns arrays to wait for, or None.
      arguments: makes, while no clock runs, the arguments of so many calls.
      copies: others that do the same on data of their own; samples are of one after the other,
        lest a variant seem faster because its data happens to lie better in memory.
    """

    name: str
    call: Callable[..., Any]
    arguments: Callable[[int], list[tuple[Any, ...]]] = lambda count: [()] * count
    copies: tuple[Callable[..., Any], ...] = ()
    _turns: Iterator[Callable[..., Any]] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_turns", itertools.cycle((self.call, *self.copies)))

    def seconds(self, count: int, clock: Callable[[], float] = time.perf_counter) -> float:
        """Returns the seconds that each of some calls took, until the last result was there."""
        call, arguments = next(self._turns), self.arguments(count)
        for _ in range(2 * bool(self.copies)):  # as in a loop, where the call before was the same
            jax.block_until_ready(call())
        result = None
        start = clock()
        for given in arguments:
            result = call(*given)
        jax.block_until_ready(result)
        return (clock() - start) / count


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keeps the collector still: its time goes with all objects of the process, not with a call."""
    gc.collect(1)  # what the last round left; all of it would take a tenth of a second
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(variants: Sequence[Variant], options: argparse.Namespace, seconds: float) -> Samples:
    """Measures variants in interleaved rounds, each time in another order.

    Args:
      variants: what to measure; all are called a few times before.
      options: `rounds`, how many samples to take of each, and `processor_time`.
      seconds: about how long one sample takes, if one call is not longer. The shorter, the more of
        them does another program leave alone.
    """
    clock = time.process_time if options.processor_time else time.perf_counter
    counts = {}
    with no_garbage_collection():
        for variant in variants:
            for _ in range(3 * (1 + len(variant.copies))):
                variant.seconds(1)
            once = min(variant.seconds(1) for _ in range(3))
            counts[variant.name] = max(1, min(1000, int(seconds / once)))
    samples: Samples = {variant.name: [] for variant in variants}
    order, shuffle = list(variants), random.Random(0).shuffle
    for _ in range(options.rounds):
        shuffle(order)
        with no_garbage_collection():
            for variant in order:
                samples[variant.name].append(variant.seconds(counts[variant.name], clock))
    return samples


# -- comparing


class Interval(NamedTuple):
    """A figure and the ends of its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


median = statistics.median


def ratio(samples: Mapping[Any, Sequence[float]], above: Any, below: Any) -> float:
    """Returns the median over rounds of the ratio within each."""
    pairs = zip(samples[above], samples[below], strict=False)
    return statistics.median(a / b for a, b in pairs)


def net_ratio(
    samples: Mapping[str, Sequence[float]], above: str, below: str, twin: str | None = None
) -> Interval:
    """Returns the ratio of two variants, divided by that of a variant to itself.

    Args:
      samples: seconds by variant.
      above: the variant that is judged.
      below: the variant it is compared with.
      twin: the same as `below`, measured a second time; None to leave the ratio as it is.
    """
    a, b, c = (np.asarray(samples[name]) for name in (above, below, twin or below))
    chosen = np.random.default_rng(0).integers(0, len(b), (2000, len(b)))  # rounds, drawn again
    again = np.median((a / b)[chosen], axis=1) / np.median((c / b)[chosen], axis=1)
    low, high = np.percentile(again, (2.5, 97.5))
    return Interval(float(np.median(a / b) / np.median(c / b)), float(low), float(high))


def verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


# -- what may be missing


def peer(name: str) -> Any:
    """Returns a library to compare with, or None, said aloud, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: its rows are left out")
        return None


# -- showing


def duration(seconds: float) -> str:
    """Returns seconds with a unit that suits them."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine() -> str:
    """Returns what the figures depend on besides the code."""
    device = jax.devices()[0].device_kind
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"jax {jax.__version__}, Python {platform.python_version()}, {device}, "
        f"{os.cpu_count()} processors, load {load}"
    )


def plot_bars(
    file: Path,
    title: str,
    unit: str,
    groups: Mapping[str, Mapping[str, float]],
    *,
    log: bool = True,
) -> None:
    """Draws a group of bars for each of some cases, one bar for each variant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    width = 0.8 / len(names)
    figure, axes = plt.subplots(figsize=(max(7.0, 1.3 * len(groups) + 2), 4.6), dpi=110)
    for i, name in enumerate(names):
        at = [j for j, bars in enumerate(groups.values()) if name in bars]
        heights = [bars[name] for bars in groups.values() if name in bars]
        axes.bar([j + (i - (len(names) - 1) / 2) * width for j in at], heights, width, label=name)
    axes.set(title=title, ylabel=unit, yscale="log" if log else "linear")
    axes.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize="small")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)
    print(f"\nsee {file}")


def insert_section(text: str, heading: str, body: str) -> str:
    """Returns a document with a section between the marks of the benchmarks put in or replaced.

    Raises:
      ValueError: if the document lacks the marks.
    """
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the marks {BEGIN} and {END}")
    parts = [part.strip() for part in f"\n{inside.strip()}".split("\n### ")]
    sections = {name: rest.strip() for name, _, rest in (p.partition("\n") for p in parts if p)}
    sections[heading] = body.strip()
    whole = "\n\n".join(f"### {name}\n\n{body}" for name, body in sorted(sections.items()))
    return f"{before}{BEGIN}\n{whole}\n{END}{after}"


# -- the command


def make_parser(doc: str, **rounds: int) -> argparse.ArgumentParser:
    """Returns a parser of the options that all benchmarks have.

    Args:
      doc: the docstring of the benchmark.
      **rounds: `full` and `quick`, how many rounds there are if nothing is said.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.set_defaults(rounds_of=rounds)
    parser.add_argument("--quick", action="store_true", help="less of everything, to try it")
    parser.add_argument(
        "--rounds", type=int, help=f"default: {rounds['full']}, {rounds['quick']} with --quick"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the time of all threads, which other programs disturb less",
    )
    parser.add_argument(
        "--publish", action="store_true", help="put the table into docs/benchmarks.md as well"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the picture"
    )
    return parser


def read_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Reads the arguments of a command; those of this process if None."""
    found = parser.parse_args(arguments)
    if found.rounds is None:
        found.rounds = found.rounds_of["quick" if found.quick else "full"]
    if found.rounds < 1:
        parser.error(f"--rounds must be at least 1, found {found.rounds}")
    return found


def publish(heading: str, body: str, options: argparse.Namespace) -> None:
    """Prints a section, and puts it into docs/benchmarks.md if told to."""
    clock = "Seconds are processor time of all threads. " * options.processor_time
    body = f"{body}\n\n{clock}{machine()}"
    print(f"\n{heading}\n\n{body}")
    if options.publish:
        page = ROOT / "docs" / "benchmarks.md"
        text = insert_section(page.read_text(encoding="utf-8"), heading, body)
        page.write_text(text, encoding="utf-8")
