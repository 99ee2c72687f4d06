"""The table of configurations in which each layer is compared with the peer.

A *case* says how to make a layer (or a function) in either library, and what to call it with. Each
file beside this one has a list `CASES`; `test_layers.py` runs them all.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

Make = Callable[[Any, Any], Any]
"""A function `(library, rngs) -> layer`."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer by name and arguments; arguments that are layers themselves are made first.

    Example: Layer("RNN", Layer("LSTMCell", 3, 4)).
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(self, name: str, /, *args: Any, **kwargs: Any):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    def __call__(self, nnx: Any, rngs: Any) -> Any:
        made = lambda part: part(nnx, rngs) if isinstance(part, Layer) else part  # noqa: E731
        kind = getattr(nnx, self.name)
        kwargs = {name: made(value) for name, value in self.kwargs.items()}
        if "rngs" in inspect.signature(kind.__init__).parameters:
            kwargs["rngs"] = rngs
        return kind(*map(made, self.args), **kwargs)


@dataclasses.dataclass(frozen=True)
class Function:
    """A function by name, with the arguments that follow the arrays."""

    name: str
    kwargs: Mapping[str, Any]

    def __init__(self, name: str, /, **kwargs: Any):
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "kwargs", kwargs)

    def __call__(self, nnx: Any, rngs: Any) -> Any:
        return functools.partial(getattr(nnx, self.name), **self.kwargs)


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes:
      name: what is special about it.
      make: how it is made: a `Layer`, a `Function`, or any function `(library, rngs) -> callable`.
      inputs: the arguments of the call: shapes of random arrays, or arrays.
      dtype: dtype of the random arrays.
      call: keyword arguments of the call.
      method: what is called.
      tolerance: for what Weft computes otherwise, to be right where the peer is not (see
        `docs/differences.md`): how far it may be off, relative to the largest number of an array;
        dtypes may differ then. 0 for the same bits.
    """

    name: str
    make: Make
    inputs: tuple[Any, ...]
    dtype: Any = jnp.float32
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    method: str = "__call__"
    tolerance: float = 0.0

    def arrays(self) -> tuple[Any, ...]:
        """Returns the arguments; the random ones are the same each time."""
        random = np.random.default_rng(0)
        return tuple(
            jnp.asarray(random.normal(size=given), self.dtype) if _is_shape(given) else given
            for given in self.inputs
        )


def _is_shape(given: Any) -> bool:
    return isinstance(given, tuple) and all(isinstance(size, int) for size in given)


def quick_init(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An initializer that compiles nothing, for cases that are not about initializers."""
    return jnp.asarray(np.random.default_rng(2).normal(size=shape), dtype)


def in_precisions(
    name: str,
    layer: Layer,
    *shapes: tuple[int, ...],
    tolerances: Mapping[str, float] | None = None,
    **options: Any,
) -> list[Case]:
    """Returns a case for each way to choose dtypes: all of one dtype, or computing in another."""

    def case(label: str, inputs_dtype: Any, **dtypes: Any) -> Case:
        made = Layer(layer.name, *layer.args, **layer.kwargs, **dtypes)
        given = {"inputs": shapes, "tolerance": (tolerances or {}).get(label, 0.0), **options}
        return Case(f"{name} {label}", made, **{"dtype": inputs_dtype, **given})

    return [
        case("float32", jnp.float32),
        case("in bfloat16", jnp.float32, dtype=jnp.bfloat16),
        case("float16", jnp.float16, param_dtype=jnp.float16),
    ]
