"""Handovers: a trace is used by the call that it was made for, and only with such arguments."""

from __future__ import annotations

import threading
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.lift.donated import is_donated


class Pair(nnx.Module):
    def __init__(self) -> None:
        self.a, self.b = nnx.Variable(jnp.arange(4.0)), nnx.Variable(jnp.zeros(()))


@pytest.mark.parametrize("options", [{}, {"keep_unused": True}, {"donate_argnums": 0}])
def test_arguments_that_became_others_after_the_trace(options: dict[str, Any]) -> None:
    """Another thread writes an array of another shape while the function is traced."""
    m, plain, writes = Pair(), Pair(), []

    def write() -> None:
        m.a.value = jnp.ones(2)

    def train(m: Pair) -> Any:
        if writes:
            writes.pop()
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        m.b[...] = m.a.sum() / len(m.a)
        m.a[...] = m.a * 2 + len(m.a)
        return m.b * 10

    jitted = nnx.jit(train, on_retrace=None, **options)
    plain.a.value = jnp.ones(2)
    writes.append(None)
    for _ in range(4):
        np.testing.assert_array_equal(jitted(m), train(plain))
        np.testing.assert_array_equal(m.a, plain.a)
        np.testing.assert_array_equal(m.b, plain.b)
    assert jitted.cache_info().traces == 2


def test_only_what_is_given_away_is_donated() -> None:
    m, n = Pair(), Pair()

    def train(m: Pair, n: Pair) -> None:
        m.a[...] = m.a + 1
        n.a[...] = n.a + 1

    given = nnx.jit(train, donate=None, donate_argnums=0)
    for _ in range(3):
        given(m, n)
    assert is_donated(lambda: given(m, n), m.a)
    assert not is_donated(lambda: given(m, n), n.a)
    np.testing.assert_array_equal(n.a, np.arange(4.0) + 5)
