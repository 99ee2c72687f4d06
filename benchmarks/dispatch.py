"""What a call costs: steps and forward passes of networks so small that Python is what is timed.

The network is a multilayer perceptron of 8 x 8 layers, the step is one of Adam. What is compared
with is `jax.jit` by hand: a flat dict of arrays, donated where they are written. It is measured
twice, and what a variant costs is (its ratio to raw) / (the ratio of raw to raw). Within budget is
what has the lower end of its bootstrap interval there: 1.10 up to depth 20, 1.07 beyond.

Besides the depths: model, optimizer, metrics and random streams as four arguments and held by one;
a batch that is a dict of 20 arrays; calls of two forms in turn, with what a call of one form costs
in the place of raw; steps with shardings over four devices; a module on each call that was never
seen before.

A Module is a pytree as well: what `jax.jit`, `jax.tree.leaves` and `jax.tree.map` of one cost is
compared with flax, of which it is to cost 0.7 at most.

One check does not depend on the clock: a profile counts the Python frames of a call of the step,
and depth must not change their number.

    python benchmarks/dispatch.py            # ten minutes or more: 400 layers are slow to compile
    python benchmarks/dispatch.py --quick    # a minute
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")  # before JAX

import dispatch_cases as cases
import harness
from dispatch_cases import RAW, TWIN, WEFT
from harness import Samples, Variant


class Case(NamedTuple):
    """A case at a depth.

    Attributes:
      make: makes the variants, given the depth.
      budget: what Weft may cost, as a net ratio to raw; None where nothing is promised.
    """

    make: Callable[[int], list[Variant]]
    depth: int
    budget: float | None

    @property
    def name(self) -> str:
        return f"{self.make.__name__.replace('_', ' ')}, depth {self.depth}"


def all_cases(quick: bool) -> list[Case]:
    depths = [5, 20] if quick else [5, 20, 100, 400]
    found = [
        Case(make, depth, 1.10 if depth <= 20 else 1.07)
        for make in (cases.train_step, cases.forward)
        for depth in depths
    ]
    found += [Case(cases.four_roots, 20, 1.10), Case(cases.one_root, 20, 1.10)]
    found += [Case(cases.batch_of_20, 5, 1.10), Case(cases.two_forms, 5, 1.5)]
    return [*found, Case(cases.shardings, 5, 1.10), Case(cases.fresh_modules, 5, None)]


def frames(call: Callable[[], Any]) -> int:
    """Counts the Python functions that a call enters."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    with harness.no_garbage_collection():  # JAX has a callback there
        sys.setprofile(see)
        try:
            call()
        finally:
            sys.setprofile(None)
    return count


def frames_of(variants: list[Variant]) -> dict[str, int]:
    """Counts the frames of one call of each variant, after its first calls."""
    found = {}
    for variant in variants:
        *before, last = variant.arguments(4)
        for given in before:
            variant.call(*given)
        found[variant.name] = frames(lambda: variant.call(*last))  # noqa: B023 - called at once
    return found


def summary(case: Case, samples: Samples) -> list[str]:
    """Returns a line of the table: case, microseconds of raw, net ratios, budget."""
    raw = harness.median(samples[RAW])
    ratios = {name: harness.net_ratio(samples, name, RAW, TWIN) for name in samples}
    weft = ratios.pop(WEFT)
    budget = (
        "-"
        if case.budget is None
        else f"{case.budget:.2f} {harness.verdict(weft.low <= case.budget)}"
    )
    peers = [f"{ratios[name].value:.1f}" if name in ratios else "-" for name in PEERS]
    noise = harness.ratio(samples, TWIN, RAW)
    return [case.name, harness.duration(raw), f"{noise:.2f}", str(weft), budget, *peers]


PEERS = (
    "flax nnx.jit",
    "flax nnx.jit, graph=False",
    "flax jit_partial",
    "flax cached_partial",
    "equinox filter_jit",
)


PYTREE_BUDGET = 0.7


def pytree_rows(depth: int, options: argparse.Namespace) -> list[list[str]]:
    """Returns the lines of the table about plain pytrees."""
    rows = []
    for name in cases.PYTREE_CALLS:
        variants = cases.as_pytree(name, depth)
        samples = harness.measure(variants, options, seconds=0.005)
        row = [f"{name}, depth {depth}", harness.duration(harness.median(samples["raw"]))]
        row.append(str(harness.net_ratio(samples, "weft", "raw")))
        if "flax" in samples:
            found = harness.net_ratio(samples, "weft", "flax")
            verdict = harness.verdict(found.low <= PYTREE_BUDGET)
            row += [str(found), f"{PYTREE_BUDGET} {verdict}"]
        rows.append([*row, "-", "-"][:5])
        print(", ".join(rows[-1]), flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns 1 if depth changes the number of Python frames, else 0."""
    options = harness.read_options(harness.make_parser(__doc__, full=100, quick=30), arguments)
    rows, bars, counted = [], {}, {}
    for case in all_cases(options.quick):
        variants = case.make(case.depth)
        samples = harness.measure(variants, options, seconds=0.005)
        rows.append(summary(case, samples))
        bars[case.name] = {
            name: harness.net_ratio(samples, name, RAW, TWIN).value
            for name in samples
            if name not in (RAW, TWIN)
        }
        if case.make is cases.train_step:
            counted[case.depth] = frames_of(variants)
        print(", ".join(rows[-1][:5]), flush=True)

    depths = [5, 20] if options.quick else [5, 20, 100]
    pytrees = [row for depth in depths for row in pytree_rows(depth, options)]
    pytree_header = ["call", "raw", "Weft ÷ raw (95%)", "Weft ÷ flax (95%)", "budget"]

    header = ["call", "raw", "raw ÷ raw", "Weft ÷ raw (95%)", "budget", *PEERS]
    shallow, deep = min(counted), max(counted)
    same = counted[shallow][WEFT] == counted[deep][WEFT]
    frame_rows = [
        [name, *(counted[depth].get(name, "-") for depth in counted)] for name in counted[shallow]
    ]
    finding = "does not grow with depth" if same else "**grows with depth**"
    body = (
        f"{harness.table(header, rows)}\n\nThe number of Python frames of a call of the step, by "
        f"depth; that of Weft {finding}:\n\n{harness.table(['', *counted], frame_rows)}\n\n"
        "Modules as plain pytrees, where raw is a dict of arrays:\n\n"
        f"{harness.table(pytree_header, pytrees)}"
    )
    harness.publish("Dispatch", body, options)
    harness.plot_bars(options.out / "dispatch.png", "What a call costs", "× raw jax.jit", bars)
    return not same


if __name__ == "__main__":
    sys.exit(main())
