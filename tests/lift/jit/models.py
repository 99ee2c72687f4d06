"""What the tests of `nnx.jit` compile: models, and steps that write into them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import weft as nnx
from tests.devices import make_mesh

X = jnp.ones((3, 2))


def layer() -> nnx.Linear:
    return nnx.Linear(2, 2, rngs=nnx.Rngs(0))


class Counter(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(2))
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def count(self, x: Any, scale: float = 1.0) -> Any:
        self.calls[...] = self.calls[...] + 1.0
        return (self.w * x).sum() * scale


class Wide(nnx.Module):
    def __init__(self) -> None:
        self.kernel = nnx.Param(jnp.arange(32.0).reshape(8, 4))
        self.scale = nnx.BatchStat(jnp.ones(4))


def shardings_of_wide() -> tuple[Any, Any, Any]:
    mesh = make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split, same = (jax.NamedSharding(mesh, spec) for spec in (jax.P("d"), jax.P()))
    return nnx.StateSharding({nnx.Param: split, ...: same}), split, same


def train_wide(m: Wide, x: Any) -> Any:
    m.kernel[...] = m.kernel + x.sum()
    return (m.kernel * m.scale).sum()


class Counters(nnx.Module):
    def __init__(self) -> None:
        self.a, self.b = nnx.Variable(jnp.zeros(2)), nnx.Variable(jnp.zeros(2))
        self.size = 0
