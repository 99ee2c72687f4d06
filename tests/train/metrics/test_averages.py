"""Average and Welford against NumPy, with masks of all kinds."""

import jax.numpy as jnp
import numpy as np
import pytest

from weft import metrics

RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(3.0, 10.0, size=n).astype(np.float32) for n in (5, 1, 17)]
ALL = np.concatenate(BATCHES)


def fed(metric, **extra):
    for batch in BATCHES:
        metric.update(values=jnp.asarray(batch), **extra)
    return metric


def test_average():
    np.testing.assert_allclose(fed(metrics.Average()).compute(), ALL.mean(), rtol=1e-6)


def test_welford():
    figures = fed(metrics.Welford()).compute()
    np.testing.assert_allclose(figures.mean, ALL.mean(), rtol=1e-5)
    np.testing.assert_allclose(figures.standard_deviation, ALL.std(), rtol=1e-5)
    np.testing.assert_allclose(
        figures.standard_error_of_mean, ALL.std() / np.sqrt(len(ALL)), rtol=1e-5
    )


@pytest.mark.parametrize("kind", [metrics.Average, metrics.Welford])
@pytest.mark.parametrize("number", [2.0, 3, True, np.float32(4)])
def test_numbers(kind, number):
    metric = kind("loss")
    metric.update(loss=number)
    assert metric.count[...] == 1
    assert (metric.mean if kind is metrics.Welford else metric.total)[...] == float(number)


def test_before_any_value():
    assert np.isnan(metrics.Average().compute())
    figures = metrics.Welford().compute()
    assert figures.mean == 0 and np.isnan(figures.standard_deviation)


@pytest.mark.parametrize(
    ("mask", "mean"),
    [
        ([True, False, True], 2.5),
        ([[True], [False]], 1.0),
        ([[True, False, False], [False, False, True]], 2.5),
        ([1, 0, 2], np.mean([0, 2, 2, 3, 5, 5])),
        ([1.0, 0.0, 2.0], np.mean([0, 2, 2, 3, 5, 5])),
        ([0.25, 0.0, 0.125], (0.25 * (0 + 3) + 0.125 * (2 + 5)) / 0.75),
    ],
    ids=["last axis", "first axis", "all axes", "multiplicities", "floats", "weights"],
)
@pytest.mark.parametrize("kind", [metrics.Average, metrics.Welford])
def test_masks_broadcast(kind, mask, mean):
    metric = kind()
    metric.update(values=jnp.arange(6.0).reshape(2, 3), mask=jnp.array(mask))
    np.testing.assert_allclose(_flat(metric.compute())[0], mean, rtol=1e-6)


@pytest.mark.parametrize("kind", [metrics.Average, metrics.Welford])
def test_masked_values_count_as_nothing_even_nan(kind):
    metric, expected = kind(), kind()
    metric.update(values=jnp.array([jnp.nan, 1.0, 4.0]), mask=jnp.array([False, True, True]))
    metric.update(values=jnp.array([jnp.inf]), mask=jnp.array([False]))
    expected.update(values=jnp.array([1.0, 4.0]))
    np.testing.assert_allclose(*(_flat(m.compute()) for m in (metric, expected)), rtol=1e-6)


def _flat(figure):
    if isinstance(figure, metrics.Statistics):
        return [figure.mean, figure.standard_error_of_mean, figure.standard_deviation]
    return [figure]


def test_empty_batches():
    metric = metrics.Welford()
    metric.update(values=jnp.zeros((0, 3)))
    metric.update(values=jnp.array([1.0, 3.0]))
    assert metric.compute().mean == 2.0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.bool_])
def test_sums_are_float32(dtype):
    values = jnp.ones(300).astype(dtype)
    metric = metrics.Average()
    metric.update(values=values)
    metric.update(values=values, mask=jnp.ones(300, jnp.int32))
    assert metric.total[...].dtype == jnp.float32
    assert metric.total[...] == 600.0


def test_reset():
    for metric in (fed(metrics.Average()), fed(metrics.Welford())):
        metric.reset()
        assert metric.count[...] == 0


def test_weights_of_less_than_one():
    metric = metrics.Welford()
    metric.update(values=jnp.array([1.0, 3.0, jnp.nan]), mask=jnp.array([0.125, 0.125, 0.0]))
    assert metric.compute().mean == 2.0 and metric.compute().standard_deviation == 1.0
    assert metric.count[...] == 0.25


@pytest.mark.parametrize("kind", [metrics.Average, metrics.Welford])
def test_mask_of_no_real_numbers(kind):
    with pytest.raises(TypeError, match=r"found dtype complex64: write `mask=mask\.ast"):
        kind().update(values=jnp.ones(3), mask=jnp.ones(3, jnp.complex64))


@pytest.mark.parametrize("kind", [metrics.Average, metrics.Welford])
def test_mask_of_another_shape(kind):
    with pytest.raises(ValueError, match=r"mask of shape \(2,\) does not broadcast .* \(3,\)"):
        kind().update(values=jnp.ones(3), mask=jnp.ones(2, bool))
