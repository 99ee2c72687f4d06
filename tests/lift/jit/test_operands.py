"""Operands: which arrays a call gives away, and which it only reads."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.lift.donated import is_donated
from tests.lift.jit.models import Wide, shardings_of_wide, train_wide


@pytest.mark.parametrize("options", [{}, {"out_shardings": "same"}, {"donate_argnums": 0}])
def test_calls_with_shardings_write_in_place(options: dict[str, Any]) -> None:
    spec, split, same = shardings_of_wide()
    options = {k: same if v == "same" else v for k, v in options.items()}
    m, plain, x = Wide(), Wide(), jnp.ones(2)
    train = nnx.jit(train_wide, in_shardings=(spec, None), **options)
    for _ in range(3):
        np.testing.assert_allclose(train(m, x), train_wide(plain, x))
    assert is_donated(lambda: train(m, x), m.kernel)
    train_wide(plain, x)
    np.testing.assert_array_equal(m.kernel, plain.kernel)
    assert m.kernel[...].sharding == split
    kept = m.kernel[...]  # handed out
    train(m=m, x=x), train(x=x, m=m), train(m, x=x)
    assert kept.is_deleted() == ("donate_argnums" in options)
    for _ in range(3):
        train_wide(plain, x)
    np.testing.assert_array_equal(m.kernel, plain.kernel)
    assert train.cache_info().traces <= 2


def test_donated_variables_need_no_copy() -> None:
    m, x = Wide(), jnp.ones(2)
    kernel, given = m.kernel[...], jnp.ones(2)
    train = nnx.jit(train_wide, donate_argnums=(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's, about x: nothing has its shape
        train(m, x)
    assert kernel.is_deleted() and not m.scale[...].is_deleted()
    again = nnx.jit(lambda m, x: (train_wide(m, x), x + 1)[1], donate_argnames=("x",))
    again(m, x=given)
    assert given.is_deleted()
