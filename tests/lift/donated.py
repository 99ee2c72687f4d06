"""A model whose arrays are donated, functions that do so, and how to look at it unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import weft as nnx
from weft._core.types import HELD
from weft._variable.storage import get_keeper, get_slot


class Model(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.arange(4.0))
        self.frozen = nnx.BatchStat(jnp.ones(4))
        self.key = nnx.Variable(jax.random.key(0))
        self.raw_key = nnx.Variable(jax.random.PRNGKey(0))


@nnx.jit
def step(m: Model) -> Any:
    m.w[...] = m.w * 2 + m.frozen
    m.key[...] = jax.random.split(m.key[...])[0]
    m.raw_key[...] = jax.random.split(m.raw_key[...])[0]
    return m.w.sum()


@nnx.jit
def add(m: Model, x: Any) -> None:
    m.w[...] = m.w + x


@nnx.jit
def read(m: Model) -> Any:
    return m.w[...]


def trained() -> Model:
    """Returns a model whose arrays are outcomes of earlier calls."""
    m = Model()
    step(m)
    step(m)
    return m


def peek(variable: nnx.Variable) -> Any:
    """Returns the array of a Variable unnoticed."""
    raw = get_slot(variable)
    if raw is HELD:
        lease = get_keeper(variable)
        (raw,) = (x for v, x in zip(lease._variables, lease.arrays, strict=True) if v is variable)
    return raw


def address(variable: nnx.Variable) -> int:
    return peek(variable).unsafe_buffer_pointer()


def is_donated(call: Callable[[], Any], variable: nnx.Variable) -> bool:
    before = peek(variable)
    call()
    return before.is_deleted()
