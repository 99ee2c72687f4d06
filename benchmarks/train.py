"""Steps per second of two whole train steps: the network that reads digits, and a small GPT.

The first is that of examples/digits.py (batches of 64, AdamW, batch normalisation, dropout); the
second has 6 blocks of width 128 and reads 8 texts of 64 tokens (Adam). All get the same NumPy
batches and as many threads. PyTorch is run eagerly, where it is installed, with one thread too.

Weft is to be ahead of all of them. In the table it is *behind* a library if the upper end of the
95% interval of (that library's time) / (Weft's time) is below 1. Where raw JAX is behind as well,
the difference lies in the compiled program.

    python benchmarks/train.py            # five minutes
    python benchmarks/train.py --quick    # one minute
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import digits_network as digits
import harness
import jax
import optax
import pytorch
import transformer
from harness import Samples, Variant
from transformer import Size

ADAM = optax.adam(1e-3)
WEFT, RAW = "weft nnx.jit", "raw jax.jit"
Batches = Sequence[tuple[Any, Any]]


def fed(name: str, step: Callable[[Any, Any], Any], batches: Batches) -> Variant:
    """Returns a variant that calls a step with the next batch each time."""
    endless = itertools.cycle(batches)
    return Variant(name, lambda: step(*next(endless)))


def carrying(step: Callable[..., Any], *states: Any) -> Callable[[Any, Any], Any]:
    """Returns a call of a step that takes (x, y) and states, and returns the loss and states."""
    held = list(states)

    def call(x: Any, y: Any) -> Any:
        loss, *held[:] = step((x, y), *held)
        return loss

    return call


def nnx_steps(
    make: Callable[[Any], Any], tx: Any, step_of: Callable[..., Any], *, has_only_params: bool
) -> dict[str, Callable[[Any, Any], Any]]:
    """Returns the ways of Weft and flax.

    Args:
      make: makes the model, given the library.
      tx: the optimizer's rule.
      step_of: makes the train step, given the library and its modes.
      has_only_params: whether the model can be differentiated as a tree, as graph=False does.
    """
    import weft

    def objects(nnx: Any) -> tuple[Any, Any]:
        model = make(nnx)
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    def bound(step: Callable[..., Any], model: Any, optimizer: Any) -> Callable[[Any, Any], Any]:
        return lambda x, y: step(model, optimizer, x, y)

    steps = {WEFT: bound(weft.jit(step_of(weft)), *objects(weft))}
    if flax := harness.peer("flax.nnx"):
        jitted = flax.jit(step_of(flax))
        steps["flax nnx.jit"] = bound(jitted, *objects(flax))
        if has_only_params:
            tree: dict[str, Any] = {"graph": False}
            of_trees = flax.jit(step_of(flax, **tree), **tree)
            steps["flax nnx.jit, graph=False"] = bound(of_trees, *objects(flax))
        steps["flax cached_partial"] = flax.cached_partial(jitted, *objects(flax))
    return steps


def digits_variants() -> list[Variant]:
    """Returns the ways to train the network that reads digits."""
    batches = digits.batches(8)
    steps = nnx_steps(digits.nnx_network, digits.adamw(), digits.nnx_step, has_only_params=False)
    if eqx := harness.peer("equinox"):
        model, state = digits.equinox_network(eqx)
        step = eqx.filter_jit(digits.equinox_step(eqx, digits.adamw()), donate="all-except-first")
        opt_state = digits.adamw().init(eqx.filter(model, eqx.is_inexact_array))
        steps["equinox filter_jit"] = carrying(step, model, state, opt_state, jax.random.key(1))
    variants = [fed(name, step, batches) for name, step in steps.items()]
    if torch := harness.peer("torch"):
        variants += pytorch.variants(torch, pytorch.digits_step(torch), batches)
    return variants


def gpt_variants(size: Size) -> list[Variant]:
    """Returns the ways to train the transformer, raw JAX among them."""
    tokens = transformer.tokens(size)
    batches = [(tokens[:, :-1], tokens[:, 1:]), (tokens[::-1, :-1], tokens[::-1, 1:])]
    batches = [(x.copy(), y.copy()) for x, y in batches]
    make = lambda nnx: transformer.nnx_transformer(nnx, size)(nnx.Rngs(0))  # noqa: E731
    steps = nnx_steps(make, ADAM, transformer.nnx_step, has_only_params=True)

    raw = jax.jit(transformer.raw_step(ADAM, size), donate_argnums=(0, 1))
    params = transformer.raw_params(size)
    steps[RAW] = carrying(lambda batch, *states: raw(*states, *batch), params, ADAM.init(params))
    if eqx := harness.peer("equinox"):
        model = transformer.equinox_transformer(eqx, size)
        step = eqx.filter_jit(transformer.equinox_step(eqx, ADAM), donate="all-except-first")
        opt_state = ADAM.init(eqx.filter(model, eqx.is_array))
        steps["equinox filter_jit"] = carrying(step, model, opt_state)
    variants = [fed(name, step, batches) for name, step in steps.items()]
    if torch := harness.peer("torch"):
        variants += pytorch.variants(torch, pytorch.gpt_step(torch, size), batches)
    return variants


def standing(samples: Samples, name: str, own: str) -> str:
    """Returns how a variant stands to another: ahead, even or behind."""
    slower = harness.net_ratio(samples, name, own)
    return "behind" if slower.high < 1 else "ahead" if slower.low > 1 else "even"


def rows_of(work: str, samples: Samples) -> list[list[str]]:
    """Returns the lines of the table for one network."""
    rows = []
    for name, seconds in samples.items():
        per_second = f"{1 / harness.median(seconds):.1f}"
        if name == WEFT:
            rows.append([work, name, per_second, "1", ""])
            continue
        verdict = f"Weft is {standing(samples, name, WEFT)}"
        if verdict.endswith("behind") and RAW in samples:
            verdict += f", raw JAX is {standing(samples, name, RAW)}"
        rows.append([work, name, per_second, str(harness.net_ratio(samples, name, WEFT)), verdict])
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = harness.read_options(harness.make_parser(__doc__, full=25, quick=5), arguments)
    size = Size(2 if options.quick else 6, width=128)
    work = {"digits": digits_variants(), f"GPT, {size.blocks} blocks": gpt_variants(size)}
    seconds = 0.1 if options.quick else 0.4
    found = {name: harness.measure(ways, options, seconds) for name, ways in work.items()}
    header = ["", "", "steps/s", "its time ÷ Weft's (95%)", ""]
    rows = [row for name, samples in found.items() for row in rows_of(name, samples)]
    harness.publish("Training", harness.table(header, rows), options)
    bars = {
        name: {way: 1 / harness.median(seconds) for way, seconds in samples.items()}
        for name, samples in found.items()
    }
    harness.plot_bars(options.out / "train.png", "Train steps", "steps/s", bars)


if __name__ == "__main__":
    sys.exit(main())
