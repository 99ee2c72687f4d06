"""A model whose Variables are of several types."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import weft as nnx


class Model(nnx.Module):
    def __init__(self, scale: float = 1.0, **metadata: Any):
        self.a = nnx.Param(jnp.full(2, scale), **metadata)
        self.b = nnx.BatchStat(jnp.full(3, scale))
        self.c = nnx.Variable(jnp.asarray(scale))
