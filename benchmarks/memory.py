"""What memory takes: an Adam step of 64 MB of parameters, a forward pass, a scan over 24 blocks.

For each way to write them, four figures in bytes: what is *live* after a few calls; what the
compiled program holds as *temporary*; the *new* bytes of its outputs, those written into donated
arguments left out; and the sum of all three, the most there is at once during a call, the *peak*.
The figures of programs are those of what a call really ran, as the backend keeps it.

With raw JAX everything that the step writes is donated by hand. Weft is to need at most 1.02 times
as much, with nothing said about donation.

    python benchmarks/memory.py            # about two minutes
    python benchmarks/memory.py --quick    # parameters of 3 MB
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import harness
import jax
import jax.numpy as jnp
import optax
from jax.extend import backend
from transformer import (
    Size,
    nnx_block,
    nnx_step,
    nnx_transformer,
    raw_block,
    raw_block_params,
    raw_params,
    raw_step,
    raw_transformer,
    tokens,
)

ADAM = optax.adam(1e-3)
RAW = "raw, donated by hand"
BUDGET = 1.02
Call = Callable[[], Any]


class Usage(NamedTuple):
    """Bytes: live after calls, temporary during one, and of outputs that are new."""

    live: int
    temporary: int
    new: int

    @property
    def peak(self) -> int:
        return sum(self)


def live_bytes() -> int:
    gc.collect()
    return sum(x.nbytes for x in jax.live_arrays())


def programs() -> list[Any]:
    """Returns the compiled programs that the backend holds."""
    return backend.get_backend().live_executables()


def usage(make: Callable[[], Call]) -> Usage:
    """Measures one way to do a piece of work, given what sets it up."""
    before, others = live_bytes(), programs()
    call = make()
    for _ in range(3):  # the first call may copy what it was handed
        result = jax.block_until_ready(call())
    live = live_bytes() - before
    del result
    found = [program for program in programs() if not any(program is other for other in others)]
    stats = [program.get_compiled_memory_stats() for program in found]
    called = max(stats, key=lambda stats: stats.argument_size_in_bytes)  # others build the model
    new = called.output_size_in_bytes - called.alias_size_in_bytes
    return Usage(live, called.temp_size_in_bytes, new)


# -- the work


def stepping(step: Callable[..., Any], params: Any, *given: Any) -> Call:
    """Returns a call of a step that takes and returns parameters and Adam's state."""
    states = [params, ADAM.init(params)]

    def call() -> Any:
        loss, *states[:] = step(*states, *given)
        return loss

    return call


def nnx_stepping(
    nnx: Any, make: Callable[..., Any], step: Any, *given: Any, **options: Any
) -> Call:
    model = make(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    jitted = nnx.jit(step, **options)
    return lambda: jitted(model, optimizer, *given)


def peers(make: Callable[..., Call], donated: tuple[int, ...]) -> dict[str, Callable[[], Call]]:
    """Returns the ways of flax, given what sets one up from the library and options of jit."""
    flax = harness.peer("flax.nnx")
    if not flax:
        return {}
    ways = {"flax nnx.jit": lambda: make(flax)}
    if donated:
        ways["flax nnx.jit, donated by hand"] = lambda: make(flax, donate_argnums=donated)
    return ways


def train_step(size: Size) -> dict[str, Callable[[], Call]]:
    import weft

    given = tokens(size)[:, :-1], tokens(size)[:, 1:]

    def raw() -> Call:
        jitted = jax.jit(raw_step(ADAM, size), donate_argnums=(0, 1))
        return stepping(jitted, raw_params(size), *given)

    def of(nnx: Any, **options: Any) -> Call:
        return nnx_stepping(nnx, nnx_transformer(nnx, size), nnx_step(nnx), *given, **options)

    return {RAW: raw, "weft nnx.jit": lambda: of(weft)} | peers(of, (0, 1))


def forward(size: Size) -> dict[str, Callable[[], Call]]:
    import weft

    x = tokens(size)[:, :-1]

    def raw() -> Call:
        params, jitted = raw_params(size), jax.jit(lambda p, x: raw_transformer(p, x, size))
        return lambda: jitted(params, x)

    def of(nnx: Any) -> Call:
        model, jitted = nnx_transformer(nnx, size)(nnx.Rngs(0)), nnx.jit(lambda m, x: m(x))
        return lambda: jitted(model, x)

    return {RAW: raw, "weft nnx.jit": lambda: of(weft)} | peers(of, ())


def scan(size: Size) -> dict[str, Callable[[], Call]]:
    """Train steps of stacked blocks, without embedding and head."""
    import weft

    x = jnp.linspace(0.0, 1.0, size.width * size.length).reshape(1, size.length, size.width)
    x = jnp.tile(x, (size.batch, 1, 1))

    def raw() -> Call:
        def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            body = lambda x, block: (raw_block(block, x, size), None)  # noqa: E731
            return jnp.mean((jax.lax.scan(body, x, params)[0] - y) ** 2)

        def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
            loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
            updates, state = ADAM.update(grads, state, params)
            return loss, optax.apply_updates(params, updates), state

        keys = jax.random.split(jax.random.key(0), size.blocks)
        params = jax.vmap(lambda key: raw_block_params(key, size))(keys)
        return stepping(jax.jit(step, donate_argnums=(0, 1)), params, x, x)

    def step_of(nnx: Any) -> Callable[..., Any]:
        def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
            optimizer.update(model, grads)
            return loss

        return step

    def of(nnx: Any, **options: Any) -> Call:
        class Scanned(nnx.Module):
            def __init__(self, rngs: Any):
                make = nnx.split_rngs(splits=size.blocks)(nnx.vmap(nnx_block(nnx, size)))
                self.blocks = make(rngs)

            def __call__(self, x: jax.Array) -> jax.Array:
                body = nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
                return body(lambda x, block: block(x))(x, self.blocks)

        return nnx_stepping(nnx, Scanned, step_of(nnx), x, x, **options)

    def stack() -> Call:
        make = lambda rngs: weft.Stack(nnx_block(weft, size), size.blocks, rngs=rngs)  # noqa: E731
        return nnx_stepping(weft, make, step_of(weft), x, x)

    ways = {RAW: raw, "weft nnx.scan": lambda: of(weft), "weft nnx.Stack": stack}
    return ways | peers(of, (0, 1))


# -- the command


def megabytes(count: float) -> str:
    return f"{count / 1e6:.2f}"


def rows_of(work: str, found: dict[str, Usage]) -> list[list[str]]:
    """Returns the lines of the table for one piece of work."""
    raw, rows = found[RAW], []
    for name, usage in found.items():
        ratio = usage.peak / raw.peak
        judged = name.startswith("weft")
        budget = f"{BUDGET} {harness.verdict(ratio <= BUDGET)}" if judged else ""
        rows.append([work, name, *map(megabytes, [*usage, usage.peak]), f"{ratio:.3f}", budget])
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = harness.read_options(harness.make_parser(__doc__, full=1, quick=1), arguments)
    large = Size(5, width=128 if options.quick else 512, length=16, batch=1)
    deep = Size(4 if options.quick else 24, width=128, length=16, batch=2)
    work = {
        "train step": train_step(large),
        "forward": forward(large),
        f"scan over {deep.blocks} blocks, train step": scan(deep),
    }
    found = {
        name: {way: median_usage(make, options.rounds) for way, make in ways.items()}
        for name, ways in work.items()
    }
    header = ["MB", "", "live", "temporary", "new", "peak", "peak ÷ raw", "budget"]
    rows = [row for name, usages in found.items() for row in rows_of(name, usages)]
    size = found["train step"][RAW].live / 3
    title = f"Memory of a call, with {megabytes(size)} MB of parameters in the first two"
    harness.publish("Memory", f"{title}.\n\n{harness.table(header, rows)}", options)
    bars = {
        name: {way: usage.peak / usages[RAW].peak for way, usage in usages.items() if way != RAW}
        for name, usages in found.items()
    }
    harness.plot_bars(options.out / "memory.png", title, "peak, × raw", bars, log=False)


def median_usage(make: Callable[[], Call], rounds: int) -> Usage:
    figures = zip(*(usage(make) for _ in range(rounds)), strict=True)
    return Usage(*(int(harness.median(column)) for column in figures))


if __name__ == "__main__":
    sys.exit(main())
