"""Outcomes: what comes out of a program, of every kind."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

import weft as nnx
from tests.lift.jit.models import Counters


def test_outputs_of_every_kind() -> None:
    @nnx.jit
    def outputs(m: Counters, kind: Any) -> Any:
        m.a[...] = m.a + 1
        n = len(kind)
        returned = (None, m.a[...], m, (m.a, {"x": m.b[...]}), [m, 1.0], nnx.Variable(m.a * 2), ())
        return returned[n]

    m = Counters()
    for i in range(2):
        assert outputs(m, jnp.zeros(0)) is None
        np.testing.assert_array_equal(outputs(m, jnp.zeros(1)), np.full(2, 7.0 * i + 2))
        assert outputs(m, jnp.zeros(2)) is m
        variable, mapping = outputs(m, jnp.zeros(3))
        assert variable is m.a and list(mapping) == ["x"]
        same, number = outputs(m, jnp.zeros(4))
        assert same is m and float(number) == 1.0
        made = outputs(m, jnp.zeros(5))
        assert type(made) is nnx.Variable and made is not m.a
        np.testing.assert_array_equal(made, np.full(2, 14.0 * i + 12))
        assert outputs(m, jnp.zeros(6)) == ()
