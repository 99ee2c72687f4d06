import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 3, 4)) * 2 + 1


def test_layer_norm_normalises_each_example():
    y = nnx.LayerNorm(4, rngs=nnx.Rngs(0))(X)
    np.testing.assert_allclose(np.mean(y, -1), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(y, -1), 1, atol=1e-4)


def test_rms_norm_divides_by_the_root_of_the_mean_square():
    y = nnx.RMSNorm(4, epsilon=0.0, rngs=nnx.Rngs(0))(X)
    np.testing.assert_allclose(y, X / np.sqrt(np.mean(np.square(X), -1, keepdims=True)), rtol=1e-5)


def test_axes_apart():
    layer = nnx.LayerNorm(3, reduction_axes=(1, 2), feature_axes=1, rngs=nnx.Rngs(0))
    layer.scale[...] = jnp.array([1.0, 2.0, 3.0])
    y = layer(X)
    plain = (X - X.mean((1, 2), keepdims=True)) / X.std((1, 2), keepdims=True)
    np.testing.assert_allclose(y, plain * jnp.array([1.0, 2.0, 3.0])[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nnx.LayerNorm, nnx.RMSNorm])
def test_what_is_masked_does_not_count(kind):
    layer = kind(4, rngs=nnx.Rngs(0))
    mask = jnp.array([True, True, True, False])
    changed = X.at[..., 3].set(100.0)
    np.testing.assert_allclose(
        layer(X, mask=mask)[..., :3], layer(changed, mask=mask)[..., :3], rtol=1e-5
    )


def test_dtypes_under_strict_promotion():
    x = X.astype(jnp.bfloat16)
    for kind in (nnx.LayerNorm, nnx.RMSNorm):
        assert kind(4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(X).dtype == jnp.bfloat16
        assert kind(4, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x).dtype == jnp.bfloat16
        assert kind(4, rngs=nnx.Rngs(0), dtype=jnp.float32)(x).dtype == jnp.float32


def test_parameters_and_metadata():
    layer = nnx.LayerNorm(4, use_bias=False, scale_metadata={"tag": "a"}, rngs=nnx.Rngs(0))
    assert layer.bias is None
    assert layer.scale.get_metadata("tag") == "a"
    assert nnx.RMSNorm(4, use_scale=False, rngs=nnx.Rngs(0)).scale is None


def test_layers_that_differ_in_their_initializer_have_one_graphdef():
    layers = [
        nnx.LayerNorm(4, scale_init=init, rngs=nnx.Rngs(0))
        for init in (nnx.initializers.ones, nnx.initializers.normal())
    ]
    assert nnx.graphdef(layers[0]) == nnx.graphdef(layers[1])


@pytest.mark.parametrize("kind", [nnx.LayerNorm, nnx.RMSNorm])
def test_another_number_of_features(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} was made for num_features=5") as error:
        kind(5, rngs=nnx.Rngs(0))(X)
    assert f"`nnx.{kind.__name__}(4, ...)`" in str(error.value)
    bare = kind(5, rngs=nnx.Rngs(0), **{"use_bias": False} if kind is nnx.LayerNorm else {})
    bare.scale = None
    assert bare(X).shape == X.shape  # nothing to fit


def test_another_number_of_features_on_two_axes():
    layer = nnx.LayerNorm(9, feature_axes=(1, 2), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="has 3 × 4 on axes"):
        layer(X)


# -- masks, the same for every kind of normalisation

NORMS = {
    "BatchNorm": lambda **kw: nnx.BatchNorm(4, rngs=nnx.Rngs(0), **kw),
    "LayerNorm": lambda **kw: nnx.LayerNorm(4, rngs=nnx.Rngs(0), **kw),
    "RMSNorm": lambda **kw: nnx.RMSNorm(4, rngs=nnx.Rngs(0), **kw),
    "GroupNorm": lambda **kw: nnx.GroupNorm(4, 2, rngs=nnx.Rngs(0), **kw),
    "InstanceNorm": lambda **kw: nnx.InstanceNorm(4, rngs=nnx.Rngs(0), **kw),
}
SEQUENCES = jax.random.normal(jax.random.key(1), (3, 5, 4))
MASKS = {
    "of nothing": jnp.zeros((3, 5, 1), bool),
    "of one example": jnp.arange(3).reshape(3, 1, 1) > 0,
    "of one feature": jnp.arange(4) > 0,
    "of the ends": jnp.arange(5).reshape(5, 1) < jnp.array([5, 2, 0]).reshape(3, 1, 1),
    "of floats": (jnp.arange(5.0).reshape(5, 1) < 3).astype(jnp.float32),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", NORMS)
def test_what_is_masked_harms_nothing(name, mask):
    mask = jnp.broadcast_to(MASKS[mask], SEQUENCES.shape)

    @nnx.jit
    def run(x):
        def loss(layer, x):
            y = layer(x, mask=mask)
            return jnp.where(mask.astype(bool), jnp.sin(y), 0).sum(), y

        layer = NORMS[name]()
        results = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, x)
        return results, nnx.state(layer)

    expected = run(SEQUENCES)
    for garbage in (jnp.inf, -jnp.inf, jnp.nan):
        found = run(jnp.where(mask.astype(bool), SEQUENCES, garbage))
        for leaf, wanted in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert jnp.isfinite(leaf).all()
            if leaf.shape == mask.shape:
                leaf, wanted = (jnp.where(mask.astype(bool), y, 0) for y in (leaf, wanted))
            np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5, 4), (3, 0, 4)])
@pytest.mark.parametrize("name", NORMS)
def test_inputs_without_elements(name, shape):
    layer = NORMS[name]()
    assert layer(jnp.zeros(shape)).shape == shape
    grads = nnx.grad(lambda layer: layer(jnp.zeros(shape)).sum())(layer)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("kind", [nnx.LayerNorm, nnx.RMSNorm])
def test_squares_that_overflow_take_float64(kind):
    x = jnp.arange(8.0).reshape(2, 4)
    with jax.enable_x64(True):
        large = kind(4, dtype=jnp.float64, rngs=nnx.Rngs(0))(1e20 * x)
        np.testing.assert_allclose(large, kind(4, epsilon=0.0, rngs=nnx.Rngs(0))(x), rtol=1e-5)
    assert not np.any(kind(4, rngs=nnx.Rngs(0))(1e20 * x) > 0)  # NaN, or zeros
