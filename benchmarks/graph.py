"""What it costs to take a model apart and put it together: split, merge, state, update, clone.

The model is a transformer of 48 blocks, 292 arrays, all of them small. *First* is a model (for
merge, a GraphDef) that no function has met before, *again* one that was met. In equinox `partition`
and `combine` stand for split and merge, `filter` for state, and a model never needs an update.

Budgets, as flax's time divided by Weft's: first 3 everywhere; again 30 for split, state and update,
10 for merge, 8 for clone, which copies the arrays (as flax does with `arrays=True`).

    python benchmarks/graph.py            # about five minutes
    python benchmarks/graph.py --quick    # half a minute
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import harness
import jax
from harness import Samples, Variant
from transformer import Size, equinox_transformer, nnx_transformer

BUDGETS = {"split": 30, "split by type": 30, "state": 30, "update": 30, "merge": 10, "clone": 8}
FIRST_BUDGET = 3


class Operation(NamedTuple):
    """An operation on a model, as one library does it.

    Attributes:
      call: does it.
      first: makes arguments of which nothing was met before.
      again: makes arguments of which the structure was met before, the arrays were not.
    """

    call: Callable[..., Any]
    first: Callable[[], tuple[Any, ...]]
    again: Callable[[], tuple[Any, ...]]

    def variants(self, library: str) -> list[Variant]:
        return [
            Variant(f"{library}, {when}", self.call, lambda count, f=f: [f() for _ in range(count)])
            for when, f in (("first", self.first), ("again", self.again))
        ]


def renewed(tree: Any) -> Any:
    """Returns another tree of the same structure, as a train step or a checkpoint would give."""
    return jax.tree.map(lambda x: x, tree)


def nnx_operations(nnx: Any, size: Size) -> dict[str, Operation]:
    """Returns the operations of one of the two libraries by name."""
    model = nnx_transformer(nnx, size)(nnx.Rngs(0))
    graphdef, state = nnx.split(model)

    def fresh() -> Any:
        return copy.deepcopy(model)  # what is remembered about a model is no part of a deep copy

    def of_model(call: Callable[[Any], Any]) -> Operation:
        return Operation(call, lambda: (fresh(),), lambda: (model,))

    def clone(model: Any) -> jax.Array:
        return nnx.clone(model, arrays=True).head.kernel[...]

    return {
        "split": of_model(lambda m: (nnx.split(m), None)[1]),
        "split by type": of_model(lambda m: (nnx.split(m, nnx.Param, ...), None)[1]),
        "state": of_model(lambda m: (nnx.state(m), None)[1]),
        "update": Operation(
            nnx.update,
            lambda: (fresh(), renewed(state)),
            lambda: (model, renewed(state)),
        ),
        "merge": Operation(
            lambda *parts: (nnx.merge(*parts), None)[1],
            lambda: nnx.split(fresh()),
            lambda: (graphdef, renewed(state)),
        ),
        "clone": of_model(clone),
    }


def equinox_operations(eqx: Any, size: Size) -> dict[str, Operation]:
    model = equinox_transformer(eqx, size)
    params, rest = eqx.partition(model, eqx.is_array)

    def of_model(call: Callable[[Any], Any]) -> Operation:
        return Operation(call, lambda: (renewed(model),), lambda: (model,))

    return {
        "split": of_model(lambda m: (eqx.partition(m, eqx.is_array), None)[1]),
        "state": of_model(lambda m: (eqx.filter(m, eqx.is_array), None)[1]),
        "merge": Operation(
            lambda *parts: (eqx.combine(*parts), None)[1],
            lambda: (renewed(params), renewed(rest)),
            lambda: (renewed(params), rest),
        ),
    }


def all_operations(size: Size) -> dict[str, dict[str, Operation]]:
    """Returns the operations by library and name."""
    import weft

    found = {"weft": nnx_operations(weft, size)}
    if flax := harness.peer("flax.nnx"):
        found["flax"] = nnx_operations(flax, size)
    if eqx := harness.peer("equinox"):
        found["equinox"] = equinox_operations(eqx, size)
    return found


def run(size: Size, options: argparse.Namespace) -> dict[str, Samples]:
    """Measures all operations."""
    operations = all_operations(size)
    found = {}
    for name in BUDGETS:
        variants = [
            variant
            for library, of_library in operations.items()
            if name in of_library
            for variant in of_library[name].variants(library)
        ]
        found[name] = harness.measure(variants, options, seconds=0.02)
    return found


def rows_of(name: str, samples: Samples) -> list[list[str]]:
    """Returns the lines of the table for one operation."""
    rows = []
    for when, budget in (("first", FIRST_BUDGET), ("again", BUDGETS[name])):
        weft, flax, eqx = (f"{library}, {when}" for library in ("weft", "flax", "equinox"))
        row = [name, when, harness.duration(harness.median(samples[weft]))]
        if flax in samples:
            faster = harness.net_ratio(samples, flax, weft)
            row += [str(faster), f"{budget} {harness.verdict(faster.high >= budget)}"]
        else:
            row += ["-", f"{budget}"]
        row.append(str(harness.net_ratio(samples, eqx, weft)) if eqx in samples else "-")
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = harness.read_options(harness.make_parser(__doc__, full=30, quick=7), arguments)
    size = Size(6 if options.quick else 48, width=8, heads=2, length=8, vocabulary=16)
    found = run(size, options)
    header = ["operation", "", "Weft", "flax ÷ Weft (95%)", "budget", "equinox ÷ Weft (95%)"]
    rows = [row for name, samples in found.items() for row in rows_of(name, samples)]
    title = f"A transformer of {size.blocks} blocks, taken apart and put together"
    harness.publish("Graph", f"{title}.\n\n{harness.table(header, rows)}", options)
    bars = {
        f"{name}, {when}": {
            library: 1e3 * harness.median(samples[f"{library}, {when}"])
            for library in ("weft", "flax", "equinox")
            if f"{library}, {when}" in samples
        }
        for name, samples in found.items()
        for when in ("first", "again")
    }
    harness.plot_bars(options.out / "graph.png", title, "ms", bars)


if __name__ == "__main__":
    sys.exit(main())
