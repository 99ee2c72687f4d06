"""Sums in two words: right where float32 and int32 end, in every way that metrics are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh
from weft import metrics
from weft.train.metrics import sums

MANY = 2**30
"""How often a weighted update counts a value: as many updates as nobody waits for."""
KINDS = {
    "average": lambda: metrics.Average("loss"),
    "welford": lambda: metrics.Welford("loss"),
}


def mean_of(metric):
    figure = metric.compute()
    return float(figure.mean if isinstance(figure, metrics.Statistics) else figure)


def exact(metric, name):
    total, rest = sums.read_words(metric, name)
    return float(total) + float(rest)


def feed(metric, value, times=1):
    metric.update(loss=jnp.full((times, 4), value), mask=jnp.full((times, 1), MANY, jnp.int32))


def test_words_of_any_number():
    for number in (3, 2**24 + 1, 2**40 + 3):
        assert sum(map(int, sums.words_of(number))) == number
    high, low = sums.words_of(jnp.int32(2**31 - 1000))
    assert int(high) + int(low) == 2**31 - 1000
    with jax.enable_x64(True):
        high, low = sums.words_of(jnp.float64(0.1))
        assert high.dtype == low.dtype == jnp.float32
        assert abs(float(high) + float(low) - 0.1) < 1e-15


@pytest.mark.parametrize("compiled", [False, True])
def test_ones_past_the_end_of_float32(compiled):
    metric = metrics.Average("loss")
    metric.update(loss=1.0, mask=jnp.int32(2**24))

    def more(metric):
        for _ in range(3):
            metric.update(loss=1.0)

    (nnx.jit(more) if compiled else more)(metric)
    assert exact(metric, "count") == exact(metric, "total") == 2**24 + 3
    assert mean_of(metric) == 1.0


def test_a_loop_of_updates_past_the_end_of_float32():
    metric = metrics.Average("loss")
    metric.update(loss=0.5, mask=jnp.int32(2**25))

    @nnx.jit
    def run(metric):
        nnx.fori_loop(0, 3000, lambda i, m: (m.update(loss=0.5), m)[1], metric)

    run(metric)
    assert exact(metric, "count") == 2**25 + 3000
    assert exact(metric, "total") == 2**24 + 1500


@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_count_over_2_to_the_33_values(kind):
    metric = KINDS[kind]()
    feed(metric, 1.0)  # 2**32 ones
    feed(metric, 2.0)
    assert exact(metric, "count") == 2**33
    assert mean_of(metric) == pytest.approx(1.5, rel=1e-6)
    # Batches that are small against what is there still move the mean.
    for _ in range(64):
        metric.update(loss=jnp.full(1024, 1e5))
    expected = (1.5 * 2**33 + 64 * 1024 * 1e5) / (2**33 + 64 * 1024)
    assert mean_of(metric) == pytest.approx(expected, rel=1e-6)
    assert float(metric.count[...]) == pytest.approx(2**33 + 64 * 1024, rel=1e-6)


def test_deviation_over_2_to_the_33_values():
    metric = metrics.Welford("loss")
    feed(metric, 1.0)
    feed(metric, 3.0)
    figures = metric.compute()
    assert float(figures.standard_deviation) == pytest.approx(1.0, rel=1e-6)
    assert float(figures.standard_error_of_mean) == pytest.approx(2**-16.5, rel=1e-6)


def test_small_moves_of_a_mean_are_not_lost():
    metric = metrics.Welford("loss")
    metric.update(loss=1.0, mask=jnp.int32(2**28))

    @nnx.jit
    def run(metric):
        nnx.fori_loop(0, 4000, lambda i, m: (m.update(loss=9.0), m)[1], metric)

    run(metric)  # each one moves the mean by a quarter of what float32 can tell
    n = 2**28 + 4000
    assert exact(metric, "mean") == pytest.approx((2**28 + 9 * 4000) / n, rel=1e-9)
    assert exact(metric, "m2") == pytest.approx(64 * 2**28 * 4000 / n, rel=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        np.full(10_000, 127, np.int8),
        np.full(10_000, 255, np.uint8),
        np.full(7, 2**31 - 1, np.int32),
        np.full(7, 2**32 - 1, np.uint32),
        np.full(100_000, -(2**15), np.int16),
        np.full(100_000, 60_000, np.float16),
        np.ones(100_000, bool),
    ],
    ids=lambda values: values.dtype.name,
)
@pytest.mark.parametrize("mask", [None, np.int8(100), True])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_narrow_values_do_not_overflow(kind, mask, values):
    metric = KINDS[kind]()
    metric.update(loss=jnp.asarray(values), mask=mask)
    assert mean_of(metric) == pytest.approx(values.astype(float).mean(), rel=1e-6)
    assert exact(metric, "count") == values.size * (100 if mask is not None and mask > 1 else 1)


def test_weights_that_are_large_together():
    for metric in (metrics.Average(), metrics.Welford()):
        metric.update(values=jnp.array([1.0, 2.0, 3.0]), mask=jnp.full(3, 2**31 - 1, jnp.int32))
        assert exact(metric, "count") == pytest.approx(3 * (2**31 - 1), rel=1e-6)
        assert mean_of(metric) == pytest.approx(2.0, rel=1e-6)


def test_values_of_64_bits():
    with jax.enable_x64(True):
        metric = metrics.Average()
        metric.update(values=jnp.array([2**53, 3], jnp.int64))
        metric.update(values=jnp.array([1e9 + 1.0], jnp.float64))
        assert exact(metric, "total") == pytest.approx(2**53 + 3 + 1e9 + 1, rel=2**-46)
        assert metric.compute().dtype == jnp.float32


def test_confusion_of_more_than_int32_can_count():
    matrix = metrics.ConfusionMatrix(2)
    logits, labels = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), jnp.array([1, 1, 0])
    for _ in range(4):
        matrix.update(logits=logits, labels=labels, mask=jnp.int32(MANY))
    for _ in range(3):
        matrix.update(logits=logits, labels=labels)
    expected = np.array([[0, 4 * MANY + 3], [4 * MANY + 3, 4 * MANY + 3]])
    np.testing.assert_allclose(matrix.compute(), expected, rtol=1e-6)
    high, low = sums.read_words(matrix, "counts")
    np.testing.assert_array_equal(np.float64(high) + np.float64(low), expected)


def test_random_sums_against_float64():
    random = np.random.default_rng(0)
    numbers = (random.normal(size=300) * 10.0 ** random.integers(-3, 8, 300)).astype(np.float32)
    metric = metrics.Average()

    @nnx.jit
    def run(metric, numbers):
        nnx.fori_loop(0, len(numbers), lambda i, m: (m.update(values=numbers[i]), m)[1], metric)

    run(metric, jnp.asarray(numbers))
    whole = numbers.astype(float).sum()
    assert exact(metric, "total") == pytest.approx(whole, abs=2**-40 * float(abs(numbers).max()))
    assert float(metric.total[...]) == np.float32(whole)


@pytest.mark.parametrize(
    ("values", "total"),
    [([jnp.inf, 1.0], jnp.inf), ([jnp.inf, -jnp.inf], jnp.nan), ([3e38, 3e38], jnp.inf)],
    ids=["infinite", "undefined", "too large"],
)
def test_what_is_not_finite_stays_so(values, total):
    metric = metrics.Average()
    for value in (*values, 1.0):
        metric.update(values=value)
    np.testing.assert_array_equal(metric.compute(), total)


# -- merged


@pytest.mark.parametrize("kind", KINDS)
def test_merged_metrics_are_one(kind):
    parts, whole = [KINDS[kind]() for _ in range(3)], KINDS[kind]()
    for i, part in enumerate(parts):
        for metric in (part, whole):
            metric.update(loss=jnp.arange(5.0) * (i + 1) + 7 * i)
    first, *others = parts
    first.merge(*others)
    first.merge(KINDS[kind]())  # which has gathered nothing
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), first.compute(), whole.compute()
    )
    assert float(others[0].count[...]) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_merged_over_and_over(kind):
    """Doubled 31 times: 2**33 values."""
    metric = KINDS[kind]()
    metric.update(loss=jnp.array([0.1, 0.2, 0.3, 0.7]))
    expected = mean_of(metric)
    for _ in range(31):
        metric.merge(nnx.clone(metric))
    assert exact(metric, "count") == 2**33
    assert mean_of(metric) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_metrics_are_merged_along_the_stack(kind):
    values = jnp.arange(12.0).reshape(2, 3, 2)

    @nnx.vmap
    @nnx.vmap
    def gather(values):
        metric = KINDS[kind]()
        metric.update(loss=values, mask=jnp.int32(MANY))
        return metric

    metric, whole = KINDS[kind](), KINDS[kind]()
    metric.merge(gather(values))
    whole.update(loss=values)
    assert exact(metric, "count") == 12 * MANY
    assert mean_of(metric) == pytest.approx(mean_of(whole), rel=1e-6)


def test_words_of_devices_are_added_apart():
    mesh = make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def gather(values):
        metric = metrics.Average()
        metric.update(values=values, mask=jnp.int32(2**31 - 1))
        return jax.tree.map(lambda x: jax.lax.psum(x, "d"), metric)

    run = jax.shard_map(gather, mesh=mesh, in_specs=spec("d"), out_specs=spec())
    metric = jax.jit(run)(jnp.arange(8.0))
    assert exact(metric, "count") == pytest.approx(8 * (2**31 - 1), rel=1e-6)
    assert mean_of(metric) == pytest.approx(3.5, rel=1e-6)


def test_several_metrics_are_merged_by_name():
    def make():
        return nnx.MultiMetric(loss=metrics.Average("loss"), spread=metrics.Welford("loss"))

    one, other = make(), make()
    one.update(loss=1.0)
    other.update(loss=3.0)
    one.merge(other)
    assert one.compute()["loss"] == one.compute()["spread"].mean == 2.0
    with pytest.raises(TypeError, match=r"same names \('loss', 'spread'\), found \('loss',\)"):
        one.merge(nnx.MultiMetric(loss=metrics.Average("loss")))


def test_matrices_are_merged():
    one, other = metrics.Recall(2, average=None), metrics.Recall(2, average=None)
    one.update(logits=jnp.array([[0.0, 1.0]]), labels=jnp.array([1]))
    other.update(logits=jnp.array([[0.0, 1.0]]), labels=jnp.array([0]))
    one.merge(other)
    np.testing.assert_array_equal(one.compute(), [0.0, 1.0])


def test_metrics_of_other_classes_are_not_merged():
    with pytest.raises(TypeError, match=r"Average\.merge takes metrics of its own class.*Accuracy"):
        metrics.Average().merge(metrics.Accuracy())


# -- written by others


class Peers(metrics.Average):
    """A metric that resets its sums by itself, as code does that knows of no rest."""

    def reset(self):
        self.total[...] = jnp.zeros(())
        self.count[...] = jnp.zeros((), jnp.int32)


def test_a_rest_of_another_sum_does_not_count():
    metric = Peers()
    metric.update(values=0.1, mask=jnp.int32(2**30 + 77))
    metric.update(values=0.1)
    assert metric.total_rest[...] != 0
    metric.reset()
    metric.update(values=1.0)
    assert metric.compute() == 1.0
    metric.reset()
    metric.total[...] += 3.0
    metric.count[...] += 2
    assert metric.compute() == 1.5
