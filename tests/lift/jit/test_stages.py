"""Stages of compiling ahead of time: they stay as they are, whatever becomes of the objects."""

from __future__ import annotations

import copy
from typing import Any

import jax.numpy as jnp
import numpy as np

import weft as nnx


class Wide(nnx.Module):
    def __init__(self) -> None:
        self.kernel = nnx.Param(jnp.arange(32.0).reshape(8, 4))
        self.scale = nnx.BatchStat(jnp.ones(4))


def _train(m: Wide, x: Any) -> Any:
    m.kernel[...] = m.kernel + x.sum()
    return (m.kernel * m.scale).sum()


def test_what_is_compiled_ahead_of_time_stays_when_caches_are_cleared() -> None:
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    compiled = nnx.jit(_train).lower(m, x).compile()
    for _ in range(2):
        np.testing.assert_allclose(compiled(m, x), _train(plain, x))
        nnx.clear_caches()
    np.testing.assert_allclose(compiled(Wide(), x), _train(Wide(), x))


def test_stages_while_another_function_holds_the_arrays() -> None:
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    step, train = nnx.jit(_train), nnx.jit(_train)
    train.lower(m, x)
    for _ in range(4):
        step(m, x), _train(plain, x)
    compiled = train.lower(m, x).compile()
    np.testing.assert_allclose(compiled(m, x), _train(plain, x))
    np.testing.assert_array_equal(m.kernel, plain.kernel)


def test_what_is_compiled_ahead_of_time_keeps_arrays_where_nothing_is_to_be_donated() -> None:
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    compiled = nnx.jit(_train).lower(m, x).compile()
    for _ in range(2):
        held, value = m.kernel[...], np.array(m.kernel)
        with nnx.set_auto_donation(False):
            np.testing.assert_allclose(compiled(m, x), _train(plain, x))
        np.testing.assert_array_equal(held, value)
        np.testing.assert_array_equal(m.kernel, plain.kernel)


def test_stages_can_be_copied() -> None:
    m, x = Wide(), jnp.ones(2)
    traced = nnx.jit(_train).trace(m, x)
    for stage in (traced, traced.lower()):
        assert type(copy.copy(stage)) is type(stage)
    np.testing.assert_allclose(copy.copy(traced).lower().compile()(m, x), _train(Wide(), x))
