"""The protocol of metrics: keywords, several metrics together, reset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft import metrics

LOGITS = jnp.array([[1.0, 2.0], [3.0, 1.0], [0.0, 5.0]])
LABELS = jnp.array([1, 0, 0])


class Largest(nnx.Metric):
    """A metric of the user's own, that takes what it knows and drops the rest."""

    def __init__(self):
        self.best = metrics.MetricState(jnp.array(0.0))

    def reset(self):
        self.best[...] = jnp.zeros_like(self.best[...])

    def update(self, *, values, **_):
        self.best[...] = jnp.maximum(self.best[...], jnp.max(values))

    def compute(self):
        return self.best[...]


@pytest.fixture
def multi():
    return nnx.MultiMetric(
        accuracy=metrics.Accuracy(), loss=metrics.Average("loss"), spread=metrics.Welford("loss")
    )


def test_abstract_methods_say_what_to_define():
    class Bare(nnx.Metric):
        def __init__(self):
            pass

    for call in (Bare().reset, Bare().update, Bare().compute, Bare().merge):
        with pytest.raises(NotImplementedError, match=r"Bare must define `"):
            call()
    with pytest.raises(NotImplementedError, match="Metric must define `__init__"):
        nnx.Metric()


def test_split_is_that_of_any_object(multi):
    graphdef, state = multi.split(metrics.MetricState)
    assert nnx.merge(graphdef, state).compute().keys() == {"accuracy", "loss", "spread"}


def test_keywords_are_read_off_the_signature():
    taken = metrics.Accuracy().keywords()
    assert taken.required == {"logits", "labels"} and taken.optional == {"mask"}
    assert metrics.Average("loss").keywords().required == {"loss"}
    assert Largest().keywords().any


# -- several metrics


def test_each_metric_gets_its_keywords(multi):
    multi.update(logits=LOGITS, labels=LABELS, loss=jnp.array([1.0, 3.0]))
    figures = multi.compute()
    np.testing.assert_allclose(figures["accuracy"], 2 / 3, rtol=1e-6)
    assert figures["loss"] == 2.0 and figures["spread"].mean == 2.0
    assert multi.loss.total[...] == 4.0
    multi.reset()
    assert multi.accuracy.count[...] == 0


def test_metrics_of_metrics_and_of_the_users_own(multi):
    outer = nnx.MultiMetric(inner=multi, largest=Largest())
    outer.update(logits=LOGITS, labels=LABELS, loss=1.0, values=7.0)
    assert outer.compute()["largest"] == 7.0
    assert outer.compute()["inner"]["loss"] == 1.0


def test_one_mask_per_metric_or_for_all(multi):
    mask = jnp.array([True, False, True])
    multi.update(logits=LOGITS, labels=LABELS, loss=1.0, mask={"accuracy": mask})
    assert multi.compute()["accuracy"] == 0.5
    multi.reset()
    multi.update(logits=LOGITS, labels=LABELS, loss=jnp.array([1.0, 9.0, 2.0]), mask=mask)
    assert multi.compute()["loss"] == 1.5


def test_misspelt_keyword(multi):
    with pytest.raises(TypeError, match=r"unexpected .*\['lables'\].*did you mean 'labels'\?"):
        multi.update(logits=LOGITS, lables=LABELS, loss=1.0)
    with pytest.raises(TypeError, match=r"Average\.update got unexpected .*mean 'values'\?"):
        metrics.Average().update(value=1.0)
    with pytest.raises(TypeError, match=r"Average\.update needs the keyword argument 'values'"):
        metrics.Average().update()


def test_missing_keyword_changes_nothing(multi):
    with pytest.raises(
        TypeError, match=r"needs the keyword argument 'loss': write `update\(labels"
    ):
        multi.update(logits=LOGITS, labels=LABELS)
    assert multi.accuracy.count[...] == 0


def test_if_one_metric_fails_none_is_changed(multi):
    mask = jnp.array([True, False, True])
    with pytest.raises(ValueError, match=r"does not broadcast .*mask=\{'accuracy': mask\}"):
        multi.update(logits=LOGITS, labels=LABELS, loss=1.0, mask=mask)
    assert multi.accuracy.count[...] == 0


def test_mask_for_an_unknown_metric(multi):
    with pytest.raises(ValueError, match=r"names \['acc'\], but the metrics are \['accuracy'"):
        multi.update(logits=LOGITS, labels=LABELS, loss=1.0, mask={"acc": True})


@pytest.mark.parametrize(
    "name", ["reset", "update", "compute", "merge", "split", "keywords", "_metrics"]
)
def test_metric_named_like_an_attribute(name):
    with pytest.raises(ValueError, match=f"a metric cannot be named '{name}'"):
        nnx.MultiMetric(**{name: metrics.Average()})


def test_what_is_no_metric():
    with pytest.raises(TypeError, match=r"found loss=3 of type int: write `loss=nnx\.metrics\.Av"):
        nnx.MultiMetric(loss=3)


# -- in transforms


def test_reset_keeps_the_shape_of_stacked_metrics():
    stacked = jax.vmap(lambda i: _updated(metrics.Average(), i))(jnp.arange(4.0))
    assert stacked.total.shape == (4,)
    for reset in (lambda m: m.reset(), nnx.vmap(lambda m: m.reset())):
        reset(stacked)
        assert stacked.total.shape == stacked.count.shape == (4,)
        assert not stacked.total[...].any()
        nnx.vmap(_updated)(stacked, jnp.arange(4.0))
        np.testing.assert_array_equal(stacked.compute(), jnp.arange(4.0))


def _updated(metric, value):
    metric.update(values=value)
    return metric


def test_one_trace_for_equal_metrics():
    traces = []

    @nnx.jit
    def step(multi, logits, labels):
        traces.append(1)
        multi.update(logits=logits, labels=labels, loss=1.0)

    for _ in range(2):
        multi = nnx.MultiMetric(accuracy=metrics.Accuracy(), loss=metrics.Average("loss"))
        step(multi, LOGITS, LABELS)
        step(multi, LOGITS, LABELS)
        assert multi.accuracy.count[...] == 6
    assert len(traces) == 1
    assert hash(nnx.graphdef(multi)) == hash(nnx.graphdef(multi))
