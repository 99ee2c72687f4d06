import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


def by_hand(x, reduce, windows):
    """Pools the first axis as PyTorch documents its adaptive pooling."""
    n = len(x)
    parts = [x[i * n // windows : -(-(i + 1) * n // windows)] for i in range(windows)]
    return np.stack([reduce(part, 0) for part in parts])


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize(
    ("kind", "reduce"), [(nnx.AdaptiveAvgPool, np.mean), (nnx.AdaptiveMaxPool, np.max)]
)
def test_windows_are_those_of_pytorch(kind, reduce, size):
    x = jax.random.normal(jax.random.key(0), (7, 3))
    expected = by_hand(np.asarray(x), reduce, size)
    np.testing.assert_allclose(kind(size)(x[None])[0], expected, rtol=1e-5, atol=1e-6)


def test_each_axis_is_pooled_and_none_keeps_one():
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 3))
    whole = nnx.AdaptiveAvgPool((2, 1))(x)
    np.testing.assert_allclose(
        whole, x.reshape(2, 2, 3, 5, 3).mean((2, 3))[:, :, None], rtol=1e-5, atol=1e-6
    )
    assert nnx.AdaptiveMaxPool((2, None))(x).shape == (2, 2, 5, 3)


def test_gradient_of_the_adaptive_maximum_counts_each_window_once():
    x = jax.random.normal(jax.random.key(0), (1, 7, 1))
    gradient = jax.grad(lambda x: nnx.AdaptiveMaxPool(5)(x).sum())(x)
    assert float(gradient.sum()) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("kind", "reduce"), [(nnx.GlobalAvgPool, jnp.mean), (nnx.GlobalMaxPool, jnp.max)]
)
def test_global_pooling(kind, reduce):
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 3))
    np.testing.assert_array_equal(kind()(x), reduce(x, (1, 2)))
    np.testing.assert_array_equal(kind(keepdims=True)(x), reduce(x, (1, 2), keepdims=True))
    np.testing.assert_array_equal(kind(2)(x[0]), reduce(x[0], (0, 1)))


def test_output_shape_that_is_not_positive_is_refused():
    with pytest.raises(
        ValueError, match=r"AdaptiveAvgPool expects output_shape to be ints of 1 or more"
    ):
        nnx.AdaptiveAvgPool(0)


@pytest.mark.parametrize("layer", [nnx.AdaptiveAvgPool((2, 2)), nnx.GlobalMaxPool(2)])
def test_inputs_of_too_few_axes_are_refused(layer):
    message = r"expects inputs of shape \(\.\.\., space, space, channels\), .* found shape \(4, 4\)"
    with pytest.raises(ValueError, match=message):
        layer(jnp.ones((4, 4)))


@pytest.mark.parametrize("kind", [nnx.AdaptiveAvgPool, nnx.AdaptiveMaxPool])
def test_one_number_is_for_all_spatial_axes(kind):
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 3))
    np.testing.assert_array_equal(kind(2)(x), kind((2, 2))(x))
    np.testing.assert_array_equal(kind(2)(x[0, 0]), kind((2,))(x[0, 0]))


@pytest.mark.parametrize("shape", [(2, 0, 5, 3), (0, 5, 5, 3)])
def test_the_mean_of_nothing_is_zero(shape):
    np.testing.assert_array_equal(nnx.GlobalAvgPool()(jnp.zeros(shape)), np.zeros((shape[0], 3)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_means_of_many_elements_in_low_precision(dtype):
    x = jnp.ones((1, 64, 64, 1), dtype)
    for layer in (nnx.GlobalAvgPool(), nnx.AdaptiveAvgPool(1), nnx.AvgPool(64)):
        y = layer(x)
        assert y.dtype == dtype and (y == 1).all()
