"""Helpers of layers with the signatures of the NNX API: they agree with the peer's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weft.module import first_from

from weft.nn import linear, normalization

X = jax.random.normal(jax.random.key(0), (3, 4, 5))
C = jax.lax.complex(X, X[::-1])
# Something counts for each statistic: where nothing does, the peer has NaN, see test_moments.
MASK = (X > 0).at[:, 0].set(True).at[..., 0].set(True)


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), a, b)


@jax.numpy_dtype_promotion("standard")  # what the helpers are for are mixed dtypes
@pytest.mark.parametrize("x", [X, C, X.astype(jnp.bfloat16)], ids=["f32", "c64", "bf16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_mean": False},
        {"use_fast_variance": False},
        {"mask": MASK},
    ],
    ids=["plain", "no mean", "two passes", "mask"],
)
def test_statistics(x: Any, options: dict[str, Any]) -> None:
    peer = pytest.importorskip("flax.nnx.nn.normalization", reason="flax is not installed")
    for axes, dtype in ((-1, None), ((0, 2), jnp.float32), ((1,), jnp.bfloat16)):
        if x is C and dtype is not None:
            continue  # which the peer would lose the imaginary parts in
        ours = normalization._compute_stats(x, axes, dtype, **options)
        theirs = peer._compute_stats(x, axes, dtype, **options)
        assert [a.dtype for a in ours] == [a.dtype for a in theirs]
        close(ours, theirs)
        if x is not C:
            arguments = (x, *ours, jnp.ones(5), None, axes, -1, None, 1e-6)
            normalized = normalization._normalize(*arguments)
            assert normalized.dtype == peer._normalize(*arguments).dtype
            close(normalized, peer._normalize(*arguments))


def test_small_helpers() -> None:
    peer = pytest.importorskip("flax.nnx.nn.linear", reason="flax is not installed")
    norms = pytest.importorskip("flax.nnx.nn.normalization", reason="flax is not installed")
    for shape in ((1, 2, 3), (1, 2, 3, 4), (1, 2)):
        numbers = linear._conv_dimension_numbers(shape)
        assert numbers == peer._conv_dimension_numbers(shape)
    assert linear._normalize_axes((-1, 0), 3) == peer._normalize_axes((-1, 0), 3)
    assert linear._canonicalize_tuple(3) == (3,) and linear._canonicalize_tuple([1, 2]) == (1, 2)
    for axes in (-1, (0, -1), (2, -1, 0)):
        ours = normalization._canonicalize_axes(3, axes)
        assert ours == tuple(norms._canonicalize_axes(3, axes))
    close(normalization._abs_sq(C), norms._abs_sq(C))
    for axis in (None, 1, (0, 1)):
        close(normalization._l2_normalize(X, axis), norms._l2_normalize(X, axis))


def test_the_first_that_is_given() -> None:
    assert first_from(None, 0, 1, error_msg="nothing") == 0
    with pytest.raises(ValueError, match="nothing"):
        first_from(None, None, error_msg="nothing")
