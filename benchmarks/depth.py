"""What depth costs: tracing and compiling the train step of a transformer of L blocks.

Compared are a Python loop over the blocks (unrolled) and a loop that XLA sees (`nnx.scan`, and in
Weft `nnx.Stack`), written with Weft, with flax.nnx and by hand with plain JAX. The math is the same
in all of them: causal attention and a two-layer perceptron before an Adam step.

Every measurement begins with empty caches, models are abstract, and rounds of all variants are
interleaved, so that what disturbs the machine disturbs all of them. Seconds are processor time of
all threads, which other programs disturb least. The table shows medians; the ratios below it are
medians over the rounds of ratios within a round.

    python benchmarks/depth.py            # tens of minutes: unrolled depth is slow to compile
    python benchmarks/depth.py --quick    # about a minute
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

WIDTH, HEADS, LENGTH, BATCH = 64, 4, 32, 2
ADAM = optax.adam(1e-3)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal attention of arrays (batch, length, width); returns the same shape."""
    q, k, v = (x.reshape(*x.shape[:-1], HEADS, -1) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(*q.shape[:-2], WIDTH)


def inputs() -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    x = jax.ShapeDtypeStruct((BATCH, LENGTH, WIDTH), jnp.float32)
    return x, x


# -- the API of nnx, for Weft and for flax


def block_class(nnx: Any) -> type:
    """Returns the block as a Module of one of the two libraries."""

    class Block(nnx.Module):
        def __init__(self, rngs: Any):
            linear = lambda n, m: nnx.Linear(n, m, rngs=rngs)  # noqa: E731
            self.before_attention = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.query, self.key, self.value = (linear(WIDTH, WIDTH) for _ in range(3))
            self.out = linear(WIDTH, WIDTH)
            self.before_mlp = nnx.LayerNorm(WIDTH, rngs=rngs)
            self.up, self.down = linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH)

        def __call__(self, x: jax.Array) -> jax.Array:
            y = self.before_attention(x)
            x = x + self.out(attention(self.query(y), self.key(y), self.value(y)))
            return x + self.down(jax.nn.gelu(self.up(self.before_mlp(x))))

    return Block


def unrolled_class(nnx: Any, depth: int) -> type:
    block = block_class(nnx)

    class Unrolled(nnx.Module):
        def __init__(self, rngs: Any):
            self.blocks = nnx.List([block(rngs) for _ in range(depth)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for block in self.blocks:
                x = block(x)
            return x

    return Unrolled


def scanned_class(nnx: Any, depth: int) -> type:
    block = block_class(nnx)

    class Scanned(nnx.Module):
        def __init__(self, rngs: Any):
            self.blocks = nnx.split_rngs(splits=depth)(nnx.vmap(block))(rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            def forward(x: jax.Array, block: Any) -> jax.Array:
                return block(x)

            return forward(x, self.blocks)

    return Scanned


def stack_class(nnx: Any, depth: int) -> Callable[[Any], Any]:
    return lambda rngs: nnx.Stack(block_class(nnx), depth, rngs=rngs)


def nnx_step(nnx: Any, model_class: Callable[[Any, int], Any], depth: int) -> Callable[[], Any]:
    """Returns a function that traces the train step of a model of one of the two libraries."""
    make = model_class(nnx, depth)

    def initial() -> tuple[Any, Any]:
        model = make(nnx.Rngs(0))
        return model, nnx.Optimizer(model, ADAM, wrt=nnx.Param)

    model, optimizer = nnx.eval_shape(initial)

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    return lambda: nnx.jit(train_step).trace(model, optimizer, *inputs())


# -- the same by hand


def init_block(key: jax.Array) -> dict[str, Any]:
    shapes = dict.fromkeys(("query", "key", "value", "out"), (WIDTH, WIDTH))
    shapes |= {"up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    keys = jax.random.split(key, len(shapes))
    linear = {
        name: {
            "kernel": jax.nn.initializers.lecun_normal()(k, shape, jnp.float32),
            "bias": jnp.zeros(shape[1:]),
        }
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    norms = {
        name: {"scale": jnp.ones(WIDTH), "bias": jnp.zeros(WIDTH)}
        for name in ("before_attention", "before_mlp")
    }
    return linear | norms


def apply_block(params: dict[str, Any], x: jax.Array) -> jax.Array:
    def linear(name: str, x: jax.Array) -> jax.Array:
        return x @ params[name]["kernel"] + params[name]["bias"]

    def norm(name: str, x: jax.Array) -> jax.Array:
        mean = jnp.mean(x, -1, keepdims=True)
        variance = jnp.maximum(jnp.mean(x * x, -1, keepdims=True) - mean * mean, 0.0)
        factor = jax.lax.rsqrt(variance + 1e-6) * params[name]["scale"]
        return (x - mean) * factor + params[name]["bias"]

    y = norm("before_attention", x)
    x = x + linear("out", attention(linear("query", y), linear("key", y), linear("value", y)))
    return x + linear("down", jax.nn.gelu(linear("up", norm("before_mlp", x))))


def hand_step(scanned: bool, depth: int) -> Callable[[], Any]:
    """Returns a function that traces the train step written with plain JAX."""

    def initial() -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.key(0), depth)
        params = jax.vmap(init_block)(keys) if scanned else [init_block(key) for key in keys]
        return params, ADAM.init(params)

    def forward(params: Any, x: jax.Array) -> jax.Array:
        if scanned:
            return jax.lax.scan(lambda x, block: (apply_block(block, x), None), x, params)[0]
        for block in params:
            x = apply_block(block, x)
        return x

    def train_step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((forward(p, x) - y) ** 2))(params)
        updates, state = ADAM.update(grads, state, params)
        return loss, optax.apply_updates(params, updates), state

    params, state = jax.eval_shape(initial)
    return lambda: jax.jit(train_step).trace(params, state, *inputs())


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
        ("by hand", "unrolled"): lambda depth: hand_step(False, depth),
        ("by hand", "scan"): lambda depth: hand_step(True, depth),
        ("weft", "unrolled"): lambda depth: nnx_step(weft, unrolled_class, depth),
        ("weft", "scan"): lambda depth: nnx_step(weft, scanned_class, depth),
        ("weft", "Stack"): lambda depth: nnx_step(weft, stack_class, depth),
    }
    try:
        from flax import nnx as flax_nnx
    except ImportError:
        print("flax is not installed: its rows are left out")
    else:
        found["flax", "unrolled"] = lambda depth: nnx_step(flax_nnx, unrolled_class, depth)
        found["flax", "scan"] = lambda depth: nnx_step(flax_nnx, scanned_class, depth)
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
    return statistics.median(getattr(sample, name) for sample in samples)


def ratio(samples: Samples, above: tuple, below: tuple, name: str = "total") -> str:
    """Returns the median over rounds of the ratio within each."""
    if above not in samples or below not in samples:
        return "-"
    pairs = zip(samples[above], samples[below], strict=False)
    return f"{statistics.median(getattr(a, name) / getattr(b, name) for a, b in pairs):.2f}"


def report(samples: Samples, depths: list[int]) -> None:
    device = jax.devices()[0].device_kind
    print(f"\njax {jax.__version__}, Python {platform.python_version()}, {device}")
    print(f"width {WIDTH}, {HEADS} heads, batch {BATCH}, length {LENGTH}, float32\n")
    print("| library | way | L | trace s | compile s | equations | temporary MB | outputs MB |")
    print("|---|---|---|---|---|---|---|---|")
    for (library, way, depth), found in sorted(samples.items()):
        print(
            f"| {library} | {way} | {depth} | {median(found, 'trace'):.2f} | "
            f"{median(found, 'compile'):.2f} | {found[0].equations} | "
            f"{found[0].temporary / 1e6:.2f} | {found[0].output / 1e6:.2f} |"
        )
    shallow, deep = depths[0], depths[-1]
    stack = ("weft", "Stack", deep)
    hand = ("by hand", "scan", deep)
    print(f"\nStack at L = {deep}, trace + compile, divided by")
    print(f"  Stack at L = {shallow}:     {ratio(samples, stack, ('weft', 'Stack', shallow))}")
    print(f"  lax.scan by hand:  {ratio(samples, stack, hand)}")
    print(f"  (lax.scan by hand, divided by itself at L = {shallow}: ", end="")
    print(f"{ratio(samples, hand, ('by hand', 'scan', shallow))})")
    for library in ("weft", "flax", "by hand"):
        unrolled = (library, "unrolled", deep)
        print(f"  unrolled, {library + ':':9}{ratio(samples, stack, unrolled)}")
    print(f"  nnx.scan, flax:    {ratio(samples, stack, ('flax', 'scan', deep))}")
    print(f"Bytes of Stack at L = {deep}, divided by those of lax.scan by hand:")
    print(f"  temporary: {ratio(samples, stack, hand, 'temporary')}")
    print(f"  outputs:   {ratio(samples, stack, hand, 'output')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="L = 2, 8 in one round")
    parser.add_argument("--depths", type=int, nargs="+", help="L (default: 4 16 48 96)")
    parser.add_argument("--rounds", type=int, help="rounds (default: 5)")
    parser.add_argument("--unrolled-rounds", type=int, help="of the unrolled models (default: 1)")
    parser.add_argument(
        "--deepest-unrolled", type=int, default=1 << 30, help="leave out deeper ones"
    )
    options = parser.parse_args()
    depths = sorted(options.depths or ([2, 8] if options.quick else [4, 16, 48, 96]))
    rounds = options.rounds or (1 if options.quick else 5)
    samples = run(depths, rounds, options.unrolled_rounds or 1, options.deepest_unrolled)
    report(samples, depths)


if __name__ == "__main__":
    main()
