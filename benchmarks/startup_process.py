"""What startup.py starts: imports one library, or builds and runs a model, and prints the times.

    python benchmarks/startup_process.py LIBRARY            # import the library and first names
    python benchmarks/startup_process.py LIBRARY BLOCKS     # and a model, an optimizer, two steps

The last line of the output is a JSON object of seconds and counts.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

START = time.perf_counter()

import jax  # noqa: E402 - the clock runs

JAX_IMPORTED = time.perf_counter()
MODULES = {"weft": "weft", "flax": "flax.nnx", "equinox": "equinox", "raw": "jax.numpy"}
FIRST_NAMES = {
    "weft": ["Linear", "Optimizer", "jit", "value_and_grad"],
    "flax": ["Linear", "Optimizer", "jit", "value_and_grad"],
    "equinox": ["nn", "apply_updates", "filter_jit", "filter_value_and_grad"],
    "raw": [],
}
"""What a first program uses of a library, which may import it only then."""
Parts = tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]
COMPILED = "/jax/core/compile/backend_compile_duration"


class Compiles:
    """Counts the programs that XLA compiles (or finds in the cache) and their seconds."""

    def __init__(self):
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self.see)

    def see(self, event: str, seconds: float, **_: Any) -> None:
        if event == COMPILED:
            self.count += 1
            self.seconds += seconds

    @contextmanager
    def part(self, name: str, found: dict[str, float]) -> Iterator[None]:
        """Puts into `found` what happens meanwhile: seconds, those of compiling, programs."""
        count, seconds, start = self.count, self.seconds, time.perf_counter()
        yield
        found[name] = time.perf_counter() - start
        found[f"{name}_compiling"] = self.seconds - seconds
        found[f"{name}_programs"] = self.count - count


def distinct(nnx: Any, model: Any) -> int:
    """Counts (initializer, shape, dtype); a Variable's name stands for its initializer."""
    flat = nnx.to_flat_state(nnx.state(model))
    return len({(path[-1], x[...].shape, x[...].dtype) for path, x in flat})


def nnx_parts(nnx: Any, size: Any, adam: Any, made: dict[str, Any]) -> Parts:
    """Returns what makes the model, the optimizer, and a call of the step; fills `made`."""
    from transformer import nnx_step, nnx_transformer, tokens

    x, y = tokens(size)[:, :-1], tokens(size)[:, 1:]
    step = nnx.jit(nnx_step(nnx))

    def model() -> Any:
        made["model"] = nnx_transformer(nnx, size)(nnx.Rngs(0))
        return jax.tree.leaves(nnx.state(made["model"]))

    def optimizer() -> Any:
        made["optimizer"] = nnx.Optimizer(made["model"], adam, wrt=nnx.Param)
        return jax.tree.leaves(nnx.state(made["optimizer"]))

    return model, optimizer, lambda: step(made["model"], made["optimizer"], x, y)


def pure_parts(
    make: Callable[[], Any], init: Callable[[Any], Any], step: Callable[..., Any]
) -> Parts:
    """Returns the same three for a step (params, state) to (loss, params, state)."""
    made: list[Any] = []

    def model() -> Any:
        made.append(make())
        return made

    def optimizer() -> Any:
        made.append(init(made[0]))
        return made

    def call() -> Any:
        loss, *made[:] = step(*made)
        return loss

    return model, optimizer, call


def parts(library: str, module: Any, size: Any, made: dict[str, Any]) -> Parts:
    """Returns the three of a library."""
    import optax
    import transformer

    adam = optax.adam(1e-3)
    x, y = (transformer.tokens(size)[:, part] for part in (slice(-1), slice(1, None)))
    match library:
        case "weft" | "flax":
            return nnx_parts(module, size, adam, made)
        case "equinox":
            step = module.filter_jit(transformer.equinox_step(module, adam))
            return pure_parts(
                lambda: transformer.equinox_transformer(module, size),
                lambda model: adam.init(module.filter(model, module.is_array)),
                lambda model, state: step((x, y), model, state),
            )
        case _:
            step = jax.jit(transformer.raw_step(adam, size), donate_argnums=(0, 1))
            return pure_parts(
                lambda: transformer.raw_params(size),
                adam.init,
                lambda params, state: step(params, state, x, y),
            )


def main() -> None:
    library, *blocks = sys.argv[1:]
    import optax  # noqa: F401 - so that no part pays for it

    start = time.process_time()
    module = importlib.import_module(MODULES[library])
    for name in FIRST_NAMES[library]:
        getattr(module, name)
    found = {"import_jax": JAX_IMPORTED - START, "import": time.process_time() - start}
    if blocks:
        from transformer import Size

        compiles = Compiles()
        jax.block_until_ready(jax.numpy.zeros(()))  # starts the backend
        start = time.perf_counter()
        size = Size(int(blocks[0]), width=64, length=32, batch=2)
        made: dict[str, Any] = {}
        model, optimizer, step = parts(library, module, size, made)
        for name, call in (("model", model), ("optimizer", optimizer), ("step", step)):
            with compiles.part(name, found):
                jax.block_until_ready([x for x in jax.tree.leaves(call()) if hasattr(x, "dtype")])
        found["total"] = time.perf_counter() - start
        if made:
            found["distinct"] = distinct(module, made["model"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
