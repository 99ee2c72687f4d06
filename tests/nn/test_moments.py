import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.moments import (
    apply_moments,
    compute_moments,
    finite_where_masked,
    normalized_axes,
)

X = jax.random.normal(jax.random.key(0), (4, 3, 2)) + 3


@pytest.mark.parametrize("fast", [True, False])
def test_mean_and_variance(fast):
    mean, var = compute_moments(X, (0, 2), use_fast_variance=fast)
    np.testing.assert_allclose(mean, np.mean(X, (0, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, np.var(X, (0, 2)), rtol=1e-4)


def test_low_precision_is_computed_in_float32():
    mean, var = compute_moments(X.astype(jnp.bfloat16), (0,))
    assert mean.dtype == var.dtype == jnp.float32


def test_a_masked_element_does_not_count():
    mask = jnp.ones(X.shape, bool).at[0].set(False)
    for fast in (True, False):
        mean, var = compute_moments(X, (0,), mask=mask, use_fast_variance=fast)
        expected = compute_moments(X[1:], (0,), use_fast_variance=fast)
        np.testing.assert_allclose(mean, expected[0], rtol=1e-5)
        np.testing.assert_allclose(var, expected[1], rtol=1e-4)


@pytest.mark.parametrize("mask", [jnp.ones((4, 1, 1)), jnp.full((4, 1, 1), 2, jnp.int8)])
def test_masks_may_be_numbers(mask):
    found = compute_moments(X, (0,), mask=mask.at[0].set(0))
    np.testing.assert_allclose(found, compute_moments(X[1:], (0,)), rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"use_fast_variance": False}, {"use_mean": False}])
def test_where_nothing_counts(options):
    def moments(x, mask):
        mean, var = compute_moments(x, (0,), mask=mask, **options)
        return (0 if mean is None else mean.sum()) + var.sum(), (mean, var)

    mask = jnp.ones(X.shape, bool).at[:, 1].set(False)
    x = X.at[:, 1].set(jnp.inf)
    grad, (mean, var) = jax.grad(moments, has_aux=True)(x, mask)
    assert jnp.isfinite(grad).all() and not grad[:, 1].any() and grad[:, 0].all()
    assert (var[1] == 1).all() and (var[0] != 1).all()
    assert mean is None or not mean[1].any()
    mean, var = moments(X[:0], None)[1]
    assert var.shape == (3, 2) and (var == 1).all()
    assert mean is None or not mean.any()


def test_what_is_masked_and_not_finite_becomes_zero():
    x = jnp.array([1.0, jnp.inf, jnp.nan, jnp.inf])
    assert finite_where_masked(x, None) is x
    found = finite_where_masked(x, jnp.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(found, [1.0, 0.0, 0.0, jnp.inf])


@pytest.mark.parametrize("fast", [True, False])
def test_statistics_across_a_mapped_axis(fast):
    def moments(x):
        return compute_moments(x, (0,), axis_name="i", use_fast_variance=fast)

    mean, var = jax.vmap(moments, axis_name="i")(X)
    np.testing.assert_allclose(mean[0], np.mean(X, (0, 1)), rtol=1e-5)
    np.testing.assert_allclose(var[1], np.var(X, (0, 1)), rtol=1e-4)


def test_groups_of_a_mapped_axis():
    mapped = jax.vmap(
        lambda x: compute_moments(x, (0,), axis_name="i", axis_index_groups=[[0, 1], [2, 3]])[0],
        axis_name="i",
    )
    with pytest.raises(NotImplementedError, match="axis_index_groups"):  # JAX: pmap has them
        mapped(X)


def test_complex_numbers_have_a_real_variance():
    z = jax.lax.complex(X[..., 0], X[..., 1])
    for fast in (True, False):
        mean, var = compute_moments(z, (0,), use_fast_variance=fast)
        np.testing.assert_allclose(mean, np.mean(z, 0), rtol=1e-5)
        np.testing.assert_allclose(var, np.var(z, 0), rtol=1e-3)
    mean, var = jax.vmap(lambda z: compute_moments(z, (0,), axis_name="i"), axis_name="i")(z)
    np.testing.assert_allclose(var[0], np.var(z), rtol=1e-3)


def test_without_a_mean_the_mean_square_is_returned():
    mean, square = compute_moments(X, (2,), use_mean=False)
    assert mean is None
    np.testing.assert_allclose(square, np.mean(np.square(X), 2), rtol=1e-6)


def test_apply_moments_scales_and_shifts():
    mean, var = compute_moments(X, (2,))
    y = apply_moments(
        X,
        mean,
        var,
        jnp.array([2.0, 3.0]),
        jnp.array([1.0, -1.0]),
        reduction_axes=(2,),
        feature_axes=(2,),
        epsilon=0.0,
        dtype=jnp.bfloat16,
    )
    assert y.dtype == jnp.bfloat16
    expected = (X - mean[..., None]) / np.sqrt(var)[..., None] * jnp.array([2.0, 3.0])
    np.testing.assert_allclose(y.astype(jnp.float32), expected + jnp.array([1.0, -1.0]), rtol=0.02)


@pytest.mark.parametrize("axes", [3, (0, -4), (1, 1), (0, -3)])
def test_wrong_axes(axes):
    with pytest.raises(ValueError, match="expected distinct axes of an input with 3 dimensions"):
        normalized_axes(axes, 3)


def test_axes_are_sorted_numbers_from_zero():
    assert normalized_axes((-1, 0), 3) == (0, 2)
    assert normalized_axes(-2, 3) == (1,)


@pytest.mark.parametrize("kind", [nnx.LayerNorm, nnx.RMSNorm, nnx.BatchNorm])
def test_a_shape_is_no_number_of_features(kind):
    message = rf"{kind.__name__} expects num_features to be one int, .* `nnx\.{kind.__name__}\(12, "
    with pytest.raises(TypeError, match=message):
        kind((3, 4), rngs=nnx.Rngs(0))
