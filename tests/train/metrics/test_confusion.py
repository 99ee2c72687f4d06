"""Confusion matrix, precision, recall and F1 score against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from weft import metrics

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(60, 4)).astype(np.float32)
LABELS = RNG.integers(0, 3, 60).astype(np.int32)  # class 3 never occurs
LOGITS[:, 2] -= 9.0  # class 2 is never predicted
PREDICTED = LOGITS.argmax(1)
CLASSES = range(4)
SCORES = {
    metrics.Precision: sklearn.metrics.precision_score,
    metrics.Recall: sklearn.metrics.recall_score,
    metrics.F1Score: sklearn.metrics.f1_score,
}


def fed(metric, logits=LOGITS, labels=LABELS, **extra):
    metric.update(logits=logits[:25], labels=labels[:25], **extra)
    metric.update(logits=logits[25:], labels=labels[25:], **extra)
    return metric


def test_confusion_matrix():
    expected = sklearn.metrics.confusion_matrix(LABELS, PREDICTED, labels=CLASSES)
    matrix = fed(metrics.ConfusionMatrix(4))
    np.testing.assert_array_equal(matrix.compute(), expected)
    matrix.reset()
    assert not matrix.compute().any()


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", None])
@pytest.mark.parametrize("kind", SCORES)
def test_scores_of_classes(kind, average):
    expected = SCORES[kind](LABELS, PREDICTED, labels=CLASSES, average=average, zero_division=0)
    found = fed(kind(4, average=average)).compute()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", SCORES)
def test_scores_with_a_threshold(kind):
    logits, labels = LOGITS[:, 0], LABELS > 0
    expected = SCORES[kind](labels, logits > 0.25)
    np.testing.assert_allclose(
        fed(kind(threshold=0.25), logits, labels).compute(), expected, rtol=1e-6
    )


@pytest.mark.parametrize("kind", SCORES)
def test_scores_before_any_value_are_zero(kind):
    np.testing.assert_array_equal(kind(2, average=None).compute(), np.zeros(2))
    assert kind(threshold=0.5).compute() == 0


def test_masked_and_unlabelled_digits_are_left_out():
    labels = np.where(np.arange(60) % 4 == 0, -1, LABELS)
    labels[1] = 4
    matrix, expected = metrics.ConfusionMatrix(4), metrics.ConfusionMatrix(4)
    matrix.update(logits=LOGITS, labels=labels)
    expected.update(logits=LOGITS, labels=LABELS, mask=labels == LABELS)
    np.testing.assert_array_equal(matrix.compute(), expected.compute())
    assert matrix.compute().sum() == 44


def test_sequences():
    matrix = metrics.ConfusionMatrix(4)
    matrix.update(logits=LOGITS.reshape(6, 10, 4), labels=LABELS.reshape(6, 10))
    np.testing.assert_array_equal(matrix.compute(), fed(metrics.ConfusionMatrix(4)).compute())


@pytest.mark.parametrize("arguments", [{"num_classes": 1}, {"num_classes": 3, "threshold": 0.5}])
def test_impossible_number_of_classes(arguments):
    with pytest.raises(ValueError, match="num_classes must be at least 2, and 2 with a threshold"):
        metrics.ConfusionMatrix(**arguments)


def test_another_number_of_classes():
    with pytest.raises(ValueError, match=r"num_classes=3 on the last axis, found shape \(60, 4\)"):
        metrics.ConfusionMatrix(3).update(logits=LOGITS, labels=LABELS)


def test_neither_classes_nor_threshold():
    with pytest.raises(ValueError, match=r"`Recall\(10\)` or `Recall\(threshold=0.5\)`"):
        metrics.Recall()


def test_unknown_average():
    with pytest.raises(ValueError, match="found 'mean'"):
        metrics.Precision(3, average="mean")
