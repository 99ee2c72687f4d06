import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (6, 3)) * 2 + 1


def batch_norm(*args, **kwargs):
    return nnx.BatchNorm(*(args or (3,)), rngs=nnx.Rngs(0), **kwargs)


def test_training_normalises_the_batch_and_moves_the_statistics():
    layer = batch_norm(momentum=0.75)
    y = layer(X)
    np.testing.assert_allclose(np.mean(y, 0), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(y, 0), 1, atol=1e-4)
    np.testing.assert_allclose(layer.mean[...], 0.25 * np.mean(X, 0), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.75 + 0.25 * np.var(X, 0), rtol=1e-5)


def test_evaluation_uses_and_keeps_the_statistics():
    layer = batch_norm()
    layer(X)
    mean, var = layer.mean[...], layer.var[...]
    layer.eval()
    np.testing.assert_allclose(layer(X), (X - mean) / np.sqrt(var + 1e-5), rtol=1e-5)
    assert layer.mean[...] is mean
    layer.train()
    layer(X)
    assert layer.mean[...] is not mean


def test_who_says_whether_to_use_the_average():
    layer = batch_norm(use_running_average=None)
    assert layer(X, use_running_average=True).shape == X.shape
    assert not nnx.view(layer, use_running_average=True).mean[...].any()
    assert nnx.view(layer, use_running_average=False)(X).shape == X.shape
    assert layer.mean[...].any()  # a view shares its Variables
    with pytest.raises(ValueError, match="BatchNorm does not know its `use_running_average`"):
        layer(X)


def test_statistics_are_no_part_of_the_gradient():
    layer = batch_norm()

    def loss(layer, x):
        layer(x)
        return layer.mean[...].sum()

    np.testing.assert_array_equal(nnx.grad(loss, argnums=1)(layer, X), 0)
    assert layer.mean[...].any()


@pytest.mark.parametrize("transform", [jax.eval_shape, nnx.eval_shape], ids=["jax", "nnx"])
def test_training_under_abstract_evaluation(transform):
    def make_and_call(x):
        layer = batch_norm()
        return layer(x), nnx.state(layer, nnx.BatchStat)

    y, state = transform(make_and_call, jax.ShapeDtypeStruct((6, 3), jnp.float32))
    assert y.shape == (6, 3)
    assert state["mean"].shape == (3,)


def test_an_abstract_model_can_be_called_abstractly():
    layer = nnx.eval_shape(batch_norm)
    y = nnx.eval_shape(lambda layer, x: layer(x), layer, X)
    assert y.shape == X.shape
    assert layer.mean.shape == (3,)
    concrete = batch_norm()
    assert nnx.eval_shape(lambda layer, x: layer(x), concrete, X).shape == X.shape


def test_a_mapped_axis_is_part_of_the_batch():
    layer, whole = batch_norm(axis_name="i"), batch_norm()
    state_axes = nnx.StateAxes({...: None})
    rows = X.reshape(2, 3, 3)
    y = nnx.vmap(
        lambda layer, x: layer(x, use_running_average=False),
        in_axes=(state_axes, 0),
        axis_name="i",
    )(layer, rows)
    np.testing.assert_allclose(y.reshape(X.shape), whole(X), atol=1e-5)
    np.testing.assert_allclose(layer.mean[...], whole.mean[...], rtol=1e-5)


def test_low_precision_under_strict_promotion():
    x = X.astype(jnp.float16)
    assert batch_norm(param_dtype=jnp.float16)(x).dtype == jnp.float32  # the statistics' dtype
    layer = batch_norm(dtype=jnp.float16)
    assert layer(X).dtype == jnp.float16
    assert layer.mean.dtype == jnp.float32


def test_another_axis_and_no_parameters():
    layer = batch_norm(6, axis=0, use_scale=False, use_bias=False)
    assert layer.scale is None and layer.bias is None
    np.testing.assert_allclose(np.mean(layer(X), 1), 0, atol=1e-5)


def test_another_number_of_features():
    with pytest.raises(
        ValueError, match=r"num_features=4, .* shape \(6, 3\) has 3 on axis 1"
    ) as error:
        batch_norm(4)(X)
    assert "`nnx.BatchNorm(3, ...)`" in str(error.value)
