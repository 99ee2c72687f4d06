import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

REDUCTIONS = {"avg_pool": np.mean, "max_pool": np.max, "min_pool": np.min}


def by_hand(x, reduce, window, steps):
    """Pools one image without padding in NumPy."""
    x = np.asarray(x)
    counts = [(n - w) // s + 1 for n, w, s in zip(x.shape, window, steps, strict=False)]
    outputs = np.zeros((*counts, x.shape[-1]), np.float32)
    for i, j in itertools.product(*map(range, counts)):
        top, left = i * steps[0], j * steps[1]
        outputs[i, j] = reduce(x[top : top + window[0], left : left + window[1]], (0, 1))
    return outputs


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize(("window", "strides"), [((2, 3), None), ((2, 2), (2, 1)), ((3, 3), 2)])
def test_pools_each_window(name, window, strides):
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    outputs = getattr(nnx, name)(x, window, strides)
    steps = (1, 1) if strides is None else (2, 2) if strides == 2 else strides
    for image, output in zip(x, outputs, strict=True):
        expected = by_hand(image, REDUCTIONS[name], window, steps)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_padding_is_never_the_extreme_value():
    x = jnp.full((1, 3, 1), -5.0)
    assert (nnx.max_pool(x, (3,), padding="SAME") == -5).all()
    assert (nnx.min_pool(-x, (3,), padding=1) == 5).all()


@pytest.mark.parametrize(("counted", "expected"), [(True, [2 / 3, 1, 2 / 3]), (False, [1, 1, 1])])
def test_average_with_and_without_padding(counted, expected):
    outputs = nnx.avg_pool(jnp.ones((1, 3, 1)), (3,), padding="SAME", count_include_pad=counted)
    np.testing.assert_allclose(outputs.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32, jnp.uint8, jnp.bool_])
def test_integers_and_booleans(dtype):
    x = jnp.asarray([[100], [120], [0]]).astype(dtype)
    assert nnx.max_pool(x, (2,)).dtype == nnx.min_pool(x, (2,)).dtype == dtype
    np.testing.assert_array_equal(nnx.max_pool(x, (2,)), jnp.maximum(x[1:], x[:-1]))
    np.testing.assert_array_equal(nnx.min_pool(x, (2,)), jnp.minimum(x[1:], x[:-1]))
    expected = np.asarray(x, np.float32)  # no overflow of int8
    np.testing.assert_array_equal(nnx.avg_pool(x, (2,)), (expected[1:] + expected[:-1]) / 2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("counted", [True, False])
def test_averages_of_large_windows(dtype, counted):
    """Sums of 1024 numbers: in bfloat16 those of ones end at 256, float16 overflows."""
    eps = float(jnp.finfo(dtype).eps)
    with jax.enable_x64(True):
        for factor in (1.0, 6e4):
            x = np.random.default_rng(0).uniform(0.9, 1.0, (1, 33, 33, 2)) * factor
            x = jnp.asarray(x, dtype)
            y = nnx.avg_pool(x, 32, padding="SAME", count_include_pad=counted)
            assert y.dtype == dtype
            exact = nnx.avg_pool(
                x.astype(jnp.float64), 32, padding="SAME", count_include_pad=counted
            )
            largest = 64 * eps if dtype in (jnp.float32, jnp.float64) else eps
            np.testing.assert_allclose(y.astype(jnp.float64), exact, rtol=largest)


def test_a_window_of_padding_alone():
    x = jnp.ones((1, 2, 1))
    for counted in (True, False):
        y, pull = jax.vjp(lambda x: nnx.avg_pool(x, (2,), padding=3, count_include_pad=counted), x)  # noqa: B023
        np.testing.assert_array_equal(y.ravel()[:2], 0)
        assert jnp.isfinite(pull(jnp.ones_like(y))[0]).all()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_one_number_is_for_all_spatial_axes(name):
    pool = getattr(nnx, name)
    for shape, window in (((2, 6, 5, 3), (2, 2)), ((2, 4, 5, 4, 3), (2, 2, 2)), ((5, 3), (2,))):
        x = jax.random.normal(jax.random.key(0), shape)
        np.testing.assert_array_equal(pool(x, 2, 2), pool(x, window, 2))
    layer = {"avg_pool": nnx.AvgPool, "max_pool": nnx.MaxPool, "min_pool": nnx.MinPool}[name]
    images = jax.random.normal(jax.random.key(0), (2, 6, 5, 3))
    assert layer(3, 3)(images).shape == (2, 2, 1, 3)


def test_integers_that_would_overflow():
    x = jnp.full((1, 16, 1), 2**31 - 1, jnp.int32)
    np.testing.assert_allclose(nnx.avg_pool(x, 16), 2.0**31, rtol=1e-6)


def test_leading_axes_are_batch():
    x = jax.random.normal(jax.random.key(0), (2, 3, 6, 4))
    expected = jnp.stack([jnp.stack([nnx.max_pool(b, (2,)) for b in a]) for a in x])
    np.testing.assert_array_equal(nnx.max_pool(x, (2,)), expected)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradient_under_jit(name):
    x = jax.random.normal(jax.random.key(0), (1, 6, 1))
    gradient = jax.jit(jax.grad(lambda x: getattr(nnx, name)(x, (2,), 2).sum()))(x)
    assert float(gradient.sum()) == pytest.approx(3.0)


def test_variables_and_numpy_arrays_are_inputs_too():
    x = np.arange(4.0, dtype=np.float32).reshape(4, 1)
    for inputs in (x, nnx.Variable(jnp.asarray(x))):
        np.testing.assert_array_equal(nnx.max_pool(inputs, (2,)).ravel(), [1.0, 2.0, 3.0])


def test_pool_with_another_function():
    x = jnp.arange(1.0, 5.0).reshape(4, 1)
    outputs = nnx.pool(x, 1, jax.lax.mul, (2,), None, "VALID")
    np.testing.assert_array_equal(outputs.ravel(), [2.0, 6.0, 12.0])


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (
            nnx.AvgPool((2, 2), 2, "SAME", count_include_pad=False),
            lambda x: nnx.avg_pool(x, (2, 2), (2, 2), "SAME", False),
        ),
        (nnx.MaxPool((2, 2), 2, 1), lambda x: nnx.max_pool(x, (2, 2), (2, 2), ((1, 1), (1, 1)))),
        (nnx.MinPool((2, 2)), lambda x: nnx.min_pool(x, (2, 2))),
    ],
)
def test_layers_are_their_functions(layer, function):
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    np.testing.assert_array_equal(layer(x), function(x))
    hash(nnx.graphdef(layer))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strides": (1,)},
            r"pooling with window_shape=\(2, 2\) has 2 spatial axes and expects stri",
        ),
        ({"padding": ((1, 1),)}, r"expected a padding for 2 spatial axes, found \(\(1, 1\),\)"),
        ({"padding": "CIRCULAR"}, r"one of \('SAME', 'SAME_LOWER', 'VALID'\), .* found 'CIRCULAR'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.max_pool(jnp.ones((1, 4, 4, 1)), (2, 2), **options)


def test_inputs_of_too_few_axes_are_refused():
    message = (
        r"inputs of shape \(\.\.\., space, space, channels\), channels last, found shape \(4, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        nnx.max_pool(jnp.ones((4, 4)), (2, 2))
