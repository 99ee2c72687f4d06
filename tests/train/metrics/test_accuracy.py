"""Accuracy and top-k accuracy."""

import jax.numpy as jnp
import numpy as np
import pytest

from weft import metrics

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(50, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, 50).astype(np.int32)


def test_accuracy():
    metric = metrics.Accuracy()
    metric.update(logits=LOGITS[:30], labels=LABELS[:30])
    metric.update(logits=LOGITS[30:], labels=LABELS[30:])
    np.testing.assert_allclose(metric.compute(), (LOGITS.argmax(1) == LABELS).mean(), rtol=1e-6)


def test_accuracy_of_sequences_with_a_mask():
    metric = metrics.Accuracy()
    mask = np.arange(50).reshape(10, 5) % 3 == 0
    metric.update(logits=LOGITS.reshape(10, 5, 4), labels=LABELS.reshape(10, 5), mask=mask)
    right = (LOGITS.argmax(1) == LABELS).reshape(10, 5)
    np.testing.assert_allclose(metric.compute(), right[mask].mean(), rtol=1e-6)


@pytest.mark.parametrize("kind", [metrics.Accuracy, lambda: metrics.TopKAccuracy(1)])
@pytest.mark.parametrize("shape", [(5,), (10, 1)])
def test_masks_broadcast(kind, shape):
    metric = kind()
    mask = np.arange(np.prod(shape)).reshape(shape) % 2 == 0
    metric.update(logits=LOGITS.reshape(10, 5, 4), labels=LABELS.reshape(10, 5), mask=mask)
    right = (LOGITS.argmax(1) == LABELS).reshape(10, 5)
    expected = right[np.broadcast_to(mask, (10, 5))].mean()
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int8, bool])
def test_accuracy_with_a_threshold(dtype):
    metric = metrics.Accuracy(threshold=0.5)
    metric.update(logits=jnp.array([0.1, 0.5, 0.9, 0.7]), labels=np.array([0, 1, 1, 0], dtype))
    assert metric.compute() == 0.75


@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k(k):
    metric = metrics.TopKAccuracy(k)
    metric.update(logits=LOGITS, labels=LABELS)
    best = np.argsort(-LOGITS, axis=1)[:, :k]
    expected = (best == LABELS[:, None]).any(axis=1).mean()
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-6)


def test_top_k_with_a_mask():
    metric = metrics.TopKAccuracy(2)
    metric.update(logits=LOGITS, labels=LABELS, mask=LABELS == 1)
    assert int(metric.count[...]) == (LABELS == 1).sum()


@pytest.mark.parametrize(
    ("threshold", "logits", "labels", "message"),
    [
        (None, (3, 2), (3, 1), r"one axis more than labels.*logits \(3, 2\) and labels \(3, 1\)"),
        (None, (3,), (3,), "one axis more than labels"),
        (None, (3, 2), (4,), "one axis more than labels"),
        (0.5, (3, 2), (3,), "with a threshold, logits have the shape of the labels"),
    ],
)
def test_shapes_that_do_not_fit(threshold, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.Accuracy(threshold).update(
            logits=jnp.zeros(logits), labels=jnp.zeros(labels, jnp.int32)
        )


def test_logits_of_one_column():
    logits, labels = jnp.array([[3.0], [2.0], [1.0], [-1.0]]), jnp.array([1, 1, 1, 0])
    for metric in (metrics.Accuracy(), metrics.TopKAccuracy(1)):
        with pytest.raises(ValueError, match=r"one column, found shape \(4, 1\).*`threshold=0.0`"):
            metric.update(logits=logits, labels=labels)
        assert metric.count[...] == 0
    for metric in (metrics.Accuracy(0.0), metrics.Recall(threshold=0.0)):
        metric.update(logits=logits, labels=labels)
        assert metric.compute() == 1.0


@pytest.mark.parametrize("labels", [jnp.zeros(3), jnp.zeros(3, bool)])
def test_labels_that_are_no_classes(labels):
    with pytest.raises(ValueError, match=r"found dtype .*labels\.argmax\(-1\)"):
        metrics.Accuracy().update(logits=jnp.zeros((3, 2)), labels=labels)


@pytest.mark.parametrize("threshold", ["0.5", True])
def test_threshold_that_is_no_number(threshold):
    with pytest.raises(TypeError, match="threshold must be a float or None"):
        metrics.Accuracy(threshold)


def test_k_out_of_range():
    with pytest.raises(ValueError, match="k must be at least 1, found 0"):
        metrics.TopKAccuracy(0)
    with pytest.raises(ValueError, match="k=5 exceeds the 4 classes"):
        metrics.TopKAccuracy(5).update(logits=LOGITS, labels=LABELS)
