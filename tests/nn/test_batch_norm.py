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
    for layer in (batch_norm(param_dtype=jnp.float16), batch_norm(dtype=jnp.float16)):
        assert layer(x).dtype == jnp.float16
        assert layer.mean.dtype == layer.var.dtype == jnp.float32
        layer.eval()
        assert layer(x).dtype == jnp.float16


def test_statistics_are_as_wide_as_the_parameters():
    with jax.enable_x64(True):
        layer = batch_norm(param_dtype=jnp.float64)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
        layer(x)
        np.testing.assert_allclose(layer.mean[...], 0.01 * np.mean(x, 0), rtol=1e-14)
        assert layer.var.dtype == jnp.float64


@pytest.mark.parametrize("options", [{}, {"param_dtype": jnp.complex64}, {"dtype": jnp.complex64}])
def test_the_running_mean_of_complex_numbers_is_complex(options):
    z = jax.lax.complex(X, 2 * X + 1)
    layer = batch_norm(momentum=0.5, **options)
    for _ in range(2):
        y = layer(z)
    assert layer.mean.dtype == y.dtype == jnp.complex64 and layer.var.dtype == jnp.float32
    np.testing.assert_allclose(layer.mean[...], 0.75 * np.mean(z, 0), rtol=1e-5)
    layer.eval()
    mean, var = statistics(layer)
    np.testing.assert_allclose(layer(z), (np.array(z) - mean) / np.sqrt(var + 1e-5), rtol=1e-5)


# -- batches that would poison the statistics


def statistics(layer):
    return np.array(layer.mean[...]), np.array(layer.var[...])


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (X, {"mask": jnp.zeros((6, 1), bool)}),
        (X[:0], {}),
        (X[:0], {"mask": jnp.zeros((0, 3), bool)}),
        (X.at[0].set(jnp.nan), {}),
        (X.at[0].set(jnp.inf), {}),
        (X * 1e30, {}),
    ],
    ids=["all masked", "empty", "empty with a mask", "NaN", "infinite", "too large"],
)
@pytest.mark.parametrize("fast", [True, False])
def test_a_bad_batch_leaves_the_statistics(x, options, fast):
    layer = batch_norm(use_fast_variance=fast)
    layer(X)
    before = statistics(layer)
    nnx.jit(lambda layer, x: layer(x, **options))(layer, x)
    layer(x, **options)
    np.testing.assert_array_equal(statistics(layer), before)


def test_a_feature_that_is_masked_is_normalised_as_in_evaluation():
    layer = batch_norm(momentum=0.5)
    layer(X)
    before = statistics(layer)
    mask = jnp.array([[True, False, True]])
    y = layer(X, mask=mask)
    np.testing.assert_array_equal(statistics(layer)[0][1], before[0][1])
    assert (statistics(layer)[0] != before[0]).tolist() == [True, False, True]
    expected = (X[:, 1] - before[0][1]) / np.sqrt(before[1][1] + 1e-5)
    np.testing.assert_allclose(y[:, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(np.mean(y, 0)[::2], 0, atol=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_devices_on_which_nothing_counts_take_no_part(fast):
    layer = batch_norm(axis_name="i", use_fast_variance=fast)
    expected = batch_norm(use_fast_variance=fast)
    mask = jnp.array([True, False, True]).reshape(3, 1, 1)
    state_axes = nnx.StateAxes({...: None})
    call = nnx.vmap(
        lambda layer, x, mask: layer(x, mask=mask), in_axes=(state_axes, 0, 0), axis_name="i"
    )
    rows = X.reshape(3, 2, 3)
    call(layer, rows, mask)
    expected(rows[jnp.array([0, 2])].reshape(4, 3))
    np.testing.assert_allclose(layer.mean[...], expected.mean[...], rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], expected.var[...], rtol=1e-5)
    before = statistics(layer)
    y = call(layer, rows, jnp.zeros((3, 1, 1), bool))
    assert jnp.isfinite(y).all()
    np.testing.assert_array_equal(statistics(layer), before)


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
