import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 3))


def spectral_norm(layer=None, **kwargs):
    return nnx.SpectralNorm(layer or nnx.Linear(3, 4, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1), **kwargs)


def largest(kernel):
    return float(jnp.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), ord=2))


def test_the_largest_singular_value_becomes_one():
    layer = spectral_norm(n_steps=60)
    before = layer.layer_instance.kernel[...]
    y = layer(X)
    np.testing.assert_allclose(y, X @ (before / largest(before)), rtol=1e-4)
    np.testing.assert_allclose(
        layer.batch_stats["kernel", "sigma"][...], largest(before), rtol=1e-4
    )


def test_power_iteration_goes_on_from_call_to_call():
    layer = spectral_norm()
    for _ in range(60):
        layer(X)
    np.testing.assert_allclose(largest(layer.layer_instance.kernel[...]), 1, rtol=1e-4)


def test_convolutions_are_seen_as_matrices():
    layer = spectral_norm(nnx.Conv(3, 4, (2,), rngs=nnx.Rngs(0)), n_steps=60)
    assert layer.batch_stats["kernel", "u"].shape == (1, 4)
    layer(jnp.ones((1, 5, 3)))
    np.testing.assert_allclose(largest(layer.layer_instance.kernel[...]), 1, rtol=1e-4)


def test_statistics_stay_in_evaluation():
    layer = spectral_norm()
    u = layer.batch_stats["kernel", "u"][...]
    layer(X, update_stats=False)
    layer.eval()
    layer(X)
    assert layer.batch_stats["kernel", "u"][...] is u
    layer.train()
    layer(X)
    assert layer.batch_stats["kernel", "u"][...] is not u


def test_dtypes():
    layer = spectral_norm(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    layer(X)
    kernel = layer.layer_instance.kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, kernel.astype(jnp.bfloat16).astype(jnp.float32))
    assert {v.dtype for v in layer.batch_stats.values()} == {jnp.dtype(jnp.bfloat16)}


def test_a_kernel_of_zeros_stays_zero():
    layer = spectral_norm(nnx.Linear(3, 4, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(layer(X), 0)


@pytest.mark.parametrize("bad", [0.0, jnp.nan, jnp.inf])
def test_power_iteration_goes_on_after_bad_weights(bad):
    layer = spectral_norm()
    kernel = layer.layer_instance.kernel
    good = kernel[...]
    kernel[...] = jnp.full((3, 4), bad)
    layer(X)
    u = layer.batch_stats["kernel", "u"][...]
    assert jnp.isfinite(u).all() and u.any()
    kernel[...] = 10 * good
    for _ in range(60):
        layer(X)
    np.testing.assert_allclose(largest(kernel[...]), 1, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e3])
def test_float16_beyond_the_range_of_its_squares(scale):
    layer = spectral_norm(
        nnx.Linear(3, 4, param_dtype=jnp.float16, rngs=nnx.Rngs(0)),
        n_steps=30,
        param_dtype=jnp.float16,
    )
    layer.layer_instance.kernel[...] *= jnp.float16(scale)
    x = X.astype(jnp.float16)
    gradients = nnx.grad(lambda layer: layer(x).astype(jnp.float32).sum())(layer)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    norm = largest(layer.layer_instance.kernel[...].astype(jnp.float32))
    np.testing.assert_allclose(norm, 1 if scale else 0, rtol=4e-3)


@pytest.mark.parametrize("scale", [1e20, 1e36])
def test_float32_beyond_the_range_of_its_squares(scale):
    layer = spectral_norm(n_steps=30)
    kernel = layer.layer_instance.kernel
    expected = largest(kernel[...]) * scale
    kernel[...] *= scale
    gradients = nnx.grad(lambda layer: layer(X).sum())(layer)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    np.testing.assert_allclose(largest(kernel[...]), 1, rtol=1e-4)
    np.testing.assert_allclose(layer.batch_stats["kernel", "sigma"][...], expected, rtol=1e-4)


def test_mistakes():
    with pytest.raises(ValueError, match="found no Param of two or more axes in LayerNorm"):
        spectral_norm(nnx.LayerNorm(3, rngs=nnx.Rngs(0)))
    conv = nnx.Conv(3, 4, (2,), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expects matrices, .* found kernel of shape \(2, 3, 4\)"):
        spectral_norm(conv, error_on_non_matrix=True)(jnp.ones((1, 5, 3)))
    with pytest.raises(ValueError, match="SpectralNorm does not know its `use_running_average`"):
        spectral_norm(update_stats=None)(X)
