"""Figures per class from a confusion matrix: precision, recall, F1 score.

For a class, a *hit* is a prediction of it that is its label, *predicted* counts its predictions,
*actual* its labels.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import jax
import jax.numpy as jnp

from weft.train.metrics.accuracy import check_threshold, predict
from weft.train.metrics.averages import as_mask
from weft.train.metrics.metric import Metric
from weft.train.metrics.sums import add_to_sum, merge_sum, new_sum, read_sum, zero_sums

Averaging = Literal["macro", "micro", "weighted"] | None


class ConfusionMatrix(Metric):
    """How often each class was taken for each other one.

    Labels outside `0 ... num_classes - 1` are left out, as if masked; -1 may mark "no label".

    Attributes:
      num_classes: the number of classes.
      threshold: None for classes, a float for yes or no.
      counts: `(num_classes, num_classes)` float32, since an int32 ends at 2**31; row for the label,
        column for the prediction. Beside it `counts_rest`, what float32 cannot hold of them.

    Args:
      num_classes: as above; 2 if there is a threshold.
      threshold: as for `Accuracy`.

    Raises:
      ValueError: if the number of classes is below 2, or not 2 with a threshold.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> matrix = nnx.metrics.ConfusionMatrix(2)
      >>> matrix.update(logits=jnp.array([[0.1, 0.9], [0.2, 0.8]]), labels=jnp.array([1, 0]))
      >>> matrix.compute().astype(int).tolist()
      [[0, 1], [0, 1]]
    """

    def __init__(self, num_classes: int, *, threshold: float | None = None):
        check_threshold(threshold)
        if num_classes < 2 or (threshold is not None and num_classes != 2):
            raise ValueError(
                f"num_classes must be at least 2, and 2 with a threshold, found {num_classes} and "
                f"threshold={threshold}: write `ConfusionMatrix(10)`"
            )
        self.num_classes = num_classes
        self.threshold = threshold
        self.counts, self.counts_rest = new_sum(num_classes, num_classes)

    def reset(self) -> None:
        """Zeroes the counts."""
        zero_sums(self, "counts")

    def merge(self, *others: Self) -> None:  # type: ignore[override]
        """Adds what other metrics have gathered; see `Metric.merge`."""
        for other in self.mergeable(others):
            merge_sum(self, other, "counts")

    def update(self, *, logits: Any, labels: Any, mask: Any = None) -> None:  # type: ignore[override]
        """Adds the predictions of a batch.

        Args:
          logits: shape `(..., num_classes)`, or that of the labels if there is a threshold.
          labels: integers, shape `(...)`.
          mask: which predictions count, as for `Average`.

        Raises:
          ValueError: if shapes do not fit, or the labels are no integers.
        """
        if self.threshold is None and jnp.shape(logits)[-1:] != (self.num_classes,):
            raise ValueError(
                f"expected logits of num_classes={self.num_classes} on the last axis, found shape "
                f"{jnp.shape(logits)}: give `{type(self).__name__}` the number of classes"
            )
        predictions, labels = predict(logits, labels, self.threshold)
        weights = jnp.ones((), bool) if mask is None else as_mask(mask, labels.shape)
        # Ones are counted as integers: a float32 to which they are added one by one ends at 2**24.
        weights = weights.astype(jnp.int32 if weights.dtype == jnp.bool_ else jnp.float32)
        # A negative index would wrap around; one past the end is dropped.
        rows = jnp.where(labels < 0, self.num_classes, labels)
        batch = jnp.zeros((self.num_classes, self.num_classes), weights.dtype)
        batch = batch.at[rows, predictions].add(weights, mode="drop")
        add_to_sum(self, "counts", batch)

    def compute(self) -> jax.Array:
        """Returns the counts, float32: row for the label, column for the prediction."""
        return read_sum(self, "counts")


class _Score(ConfusionMatrix):
    """A figure per class, from hits, predictions and labels; and its mean over the classes."""

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        threshold: float | None = None,
        average: Averaging = "macro",
    ):
        if average not in ("macro", "micro", "weighted", None):
            raise ValueError(
                f"average must be 'macro', 'micro', 'weighted' or None, found {average!r}"
            )
        if num_classes is None:
            if threshold is None:
                raise ValueError(
                    f"{type(self).__name__} needs the number of classes or a threshold: write "
                    f"`{type(self).__name__}(10)` or `{type(self).__name__}(threshold=0.5)`"
                )
            num_classes = 2
        super().__init__(num_classes, threshold=threshold)
        self.average = average

    def compute(self) -> jax.Array:
        """Returns the figure, float32; a scalar, or `(num_classes,)` for `average=None`."""
        counts = read_sum(self, "counts")
        hits, predicted, actual = jnp.diag(counts), counts.sum(0), counts.sum(1)
        if self.threshold is not None:
            return self._figure(hits[1], predicted[1], actual[1])
        if self.average == "micro":
            return self._figure(hits.sum(), predicted.sum(), actual.sum())
        figures = self._figure(hits, predicted, actual)
        if self.average == "macro":
            return figures.mean()
        if self.average == "weighted":
            return _ratio((figures * actual).sum(), actual.sum())
        return figures

    def _figure(self, hits: jax.Array, predicted: jax.Array, actual: jax.Array) -> jax.Array:
        raise NotImplementedError


class Precision(_Score):
    """The fraction of the predictions of a class that are right; 0 where there are none.

    Attributes:
      average: how the figures of the classes become one.

    Args:
      num_classes: the number of classes; not needed with a threshold.
      threshold: a float to predict yes where the logit is at or above it; the figure is then that
        of yes.
      average: 'macro' for the plain mean over the classes, 'weighted' for the mean weighted by the
        number of labels, 'micro' to sum over the classes first, None for one figure per class.

    Raises:
      ValueError: for another `average`, or without `num_classes` and `threshold`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> precision = nnx.metrics.Precision(threshold=0.5)
      >>> precision.update(logits=jnp.array([0.9, 0.8, 0.1]), labels=jnp.array([1, 0, 1]))
      >>> float(precision.compute())
      0.5
    """

    def _figure(self, hits: jax.Array, predicted: jax.Array, actual: jax.Array) -> jax.Array:
        return _ratio(hits, predicted)


class Recall(_Score):
    """The fraction of the labels of a class that are found; 0 where there are none.

    Takes the arguments of `Precision`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> recall = nnx.metrics.Recall(threshold=0.5)
      >>> recall.update(logits=jnp.array([0.9, 0.1, 0.1]), labels=jnp.array([1, 0, 1]))
      >>> float(recall.compute())
      0.5
    """

    def _figure(self, hits: jax.Array, predicted: jax.Array, actual: jax.Array) -> jax.Array:
        return _ratio(hits, actual)


class F1Score(_Score):
    """The harmonic mean of precision and recall of a class; 0 where both are.

    Takes the arguments of `Precision` (van Rijsbergen, 1979, "Information Retrieval").

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> score = nnx.metrics.F1Score(threshold=0.5)
      >>> score.update(logits=jnp.array([0.9, 0.8, 0.1]), labels=jnp.array([1, 0, 1]))
      >>> float(score.compute())
      0.5
    """

    def _figure(self, hits: jax.Array, predicted: jax.Array, actual: jax.Array) -> jax.Array:
        return _ratio(2 * hits, predicted + actual)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), 0.0)
