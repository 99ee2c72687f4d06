import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 3))


def linear():
    return nnx.Linear(3, 4, rngs=nnx.Rngs(0))


def weight_norm(layer=None, **kwargs):
    return nnx.WeightNorm(layer or linear(), rngs=nnx.Rngs(1), **kwargs)


def norms(layer, axis=0):
    return jnp.linalg.norm(layer.layer_instance.kernel[...], axis=axis)


def test_norms_are_the_scales():
    layer = weight_norm()
    layer.scales["kernel",][...] = jnp.array([1.0, 2.0, 3.0, 4.0])
    kernel = layer.layer_instance.kernel[...]
    y = layer(X)
    expected = kernel / jnp.linalg.norm(kernel, axis=0) * jnp.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(y, X @ expected, rtol=1e-5)
    np.testing.assert_allclose(norms(layer), [1, 2, 3, 4], rtol=1e-5)


def test_scales_are_parameters_and_learnt():
    layer = weight_norm()
    assert isinstance(layer.scales["kernel",], nnx.Param)
    gradients = nnx.grad(lambda layer: (layer(X) ** 2).sum())(layer)
    scales = [v[...] for path, v in nnx.to_flat_state(gradients) if path[0] == "scales"]
    assert len(scales) == 1 and bool((scales[0] != 0).all())


def test_axes():
    layer = weight_norm(feature_axes=0)
    layer(X)
    np.testing.assert_allclose(norms(layer, axis=1), 1, rtol=1e-5)
    layer = weight_norm(feature_axes=None)
    assert layer.scales["kernel",].shape == ()
    layer(X)
    np.testing.assert_allclose(norms(layer, axis=None), 1, rtol=1e-5)


def test_options():
    layer = weight_norm(use_scale=False, dtype=jnp.bfloat16)
    assert layer.scales is None
    layer(X)
    kernel = layer.layer_instance.kernel[...]
    assert kernel.dtype == jnp.float32  # rounded, but stored as before
    np.testing.assert_array_equal(kernel, kernel.astype(jnp.bfloat16).astype(jnp.float32))
    assert weight_norm(param_dtype=jnp.float16).scales["kernel",].dtype == jnp.float16
    assert weight_norm(param_dtype=jnp.float16)(X).dtype == jnp.float32


def test_scales_that_are_drawn():
    rngs = nnx.Rngs(1)
    nnx.WeightNorm(linear(), rngs=rngs)
    assert int(rngs.default.count[...]) == 0  # ones draw nothing
    layer = nnx.WeightNorm(linear(), scale_init=nnx.initializers.normal(), rngs=rngs)
    assert int(rngs.default.count[...]) == 1
    assert len(set(layer.scales["kernel",].tolist())) == 4


def test_several_layers_and_arguments():
    model = nnx.Sequential(linear(), nnx.Linear(4, 2, rngs=nnx.Rngs(2)))
    layer = weight_norm(model)
    assert set(layer.scales) == {("layers", 0, "kernel"), ("layers", 1, "kernel")}
    assert nnx.jit(lambda layer, x: layer(x))(layer, X).shape == (2, 2)
    embed = nnx.Embed(3, 4, rngs=nnx.Rngs(0))
    normalised = weight_norm(embed, variable_filter=nnx.Param, feature_axes=0)
    rows = normalised(jnp.array([0, 2]))
    np.testing.assert_allclose(jnp.linalg.norm(rows, axis=-1), 1, rtol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match=r"found no weight in Embed .* are \['embedding'\]"):
        weight_norm(nnx.Embed(3, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"feature_axes=5 for kernel of shape \(3, 4\): expected"):
        weight_norm(feature_axes=5)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        *itertools.product([jnp.float16, jnp.bfloat16, jnp.float32], [0.0, 1e-3, 1e3]),
        *itertools.product([jnp.bfloat16, jnp.float32], [1e20, 1e37]),
    ],
)
def test_vectors_of_any_length(dtype, scale):
    """Zero stays zero; squares neither overflow nor, in float16, vanish."""
    layer = weight_norm(nnx.Linear(3, 4, param_dtype=dtype, rngs=nnx.Rngs(0)), param_dtype=dtype)
    layer.layer_instance.kernel[...] *= jnp.asarray(scale, dtype)
    x = X.astype(dtype)
    gradients = nnx.grad(lambda layer: layer(x).astype(jnp.float32).sum())(layer)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    kernel = layer.layer_instance.kernel[...]
    assert kernel.dtype == dtype
    lengths = jnp.linalg.norm(kernel.astype(jnp.float32), axis=0)
    np.testing.assert_allclose(
        lengths, 1 if scale else 0, rtol=1e-6 + 4 * float(jnp.finfo(dtype).eps)
    )


def test_the_gradient_of_zeros_is_that_of_the_result():
    layer = weight_norm()
    layer.layer_instance.kernel[...] *= 0
    gradients = nnx.grad(lambda layer: layer(X).sum())(layer)
    expected = jnp.broadcast_to(X.sum(0)[:, None], (3, 4))
    found = gradients["layer_instance"]["kernel"][...]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
