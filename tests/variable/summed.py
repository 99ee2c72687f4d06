"""A model of two Variables, and the compiled function that adds them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import weft as nnx


class Model(nnx.Module):
    def __init__(self, value: float = 1.0) -> None:
        self.a, self.b = nnx.Param(jnp.full(2, value)), nnx.Param(jnp.full(2, 2.0))


@nnx.jit
def total(m: Model) -> Any:
    return m.a + m.b


def called(m: Model) -> Any:
    for _ in range(2):
        result = total(m)
    return result
