"""What the tests of objects are about: attributes of every kind, and objects that have them."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx


class Box(nnx.Module):
    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)


@dataclasses.dataclass
class Config:
    rate: float = 1.0


class Annotated(nnx.Module):
    scale: nnx.Data[Any]
    table: nnx.Static[Any]

    def __init__(self, scale: Any = None) -> None:
        self.scale = scale
        self.table = np.arange(2)


class Marked(nnx.Pytree):
    scale: nnx.Data[float]
    table: nnx.Static[Any]
    child: nnx.Data[Any] = None
    ordinary: int = 3
    other: typing.Annotated[int, "something else"] = 0

    def __init__(self) -> None:
        self.scale = 2.0
        self.table = np.arange(2)


def closure(scale: float) -> Any:
    return lambda x: x * scale


RNGS = nnx.Rngs(0)
VALUES: dict[str, Any] = {
    "array": jnp.ones(2),
    "NumPy": np.ones(2),
    "Variable": nnx.Param(jnp.ones(2), tag="a"),
    "object": Box(w=nnx.Param(1.0)),
    "class": nnx.Linear,
    "None": None,
    "True": True,
    "1": 1,
    "1.0": 1.0,
    "0.0": 0.0,
    "-0.0": -0.0,
    "nan": math.nan,
    "text": "text",
    "shape": (3, 3),
    "other shape": (True, 3),
    "dtype": np.dtype("float32"),
    "other dtype": np.dtype("bfloat16"),
    "scalar type": jnp.float32,
    "function": math.sqrt,
    "plain function": closure,
    "closure": closure(2.0),
    "config": Config(),
    "static list": [1, 2],
    "static dict": {"a": (1, "b")},
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "list": [jnp.ones(1), "text"],
    "dict": {"a": 2, "b": nnx.Param(1.0)},
    "tuple": (1, jnp.ones(1)),
    "transformation": optax.adam(0.1),
    "marked number": nnx.data(1.0),
    "marked None": nnx.data(None),
    "marked list": nnx.data([1.0, "a"]),
    "marked array": nnx.static(jnp.ones(2)),
    "marked text": nnx.static("a"),
}


OBJECTS: dict[str, Any] = {
    **{name: Box(x=value, w=nnx.Param(1.0), size=3) for name, value in VALUES.items()},
    **{
        type(x).__name__: x
        for x in (
            nnx.Linear(2, 3, rngs=RNGS),
            nnx.Conv(2, 3, (3, 3), rngs=RNGS),
            nnx.BatchNorm(2, rngs=RNGS),
            nnx.Embed(2, 3, rngs=RNGS),
            nnx.Dropout(0.1, rngs=RNGS),
            nnx.MultiHeadAttention(2, 4, rngs=RNGS),
            nnx.Sequential(nnx.relu, nnx.Linear(2, 2, rngs=RNGS)),
            nnx.List([1, nnx.Param(1.0)]),
            nnx.Dict(b=nnx.Param(1.0), a=2),
            Annotated(2.0),
            RNGS,
            RNGS.default,
        )
    },
    "Annotated without": Annotated(),
    "empty": Box(),
    "List of layers": nnx.List([Box(w=nnx.Param(1.0)), Box(w=nnx.Param(2.0))]),
    "empty List": nnx.List([]),
    "Optimizer": nnx.Optimizer(Box(w=nnx.Param(1.0)), optax.adam(0.1), wrt=nnx.Param),
}
