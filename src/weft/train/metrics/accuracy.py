"""Fractions of predictions that are right: accuracy and top-k accuracy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from weft.train.metrics.averages import Average


class Accuracy(Average):
    """The fraction of predictions that are right.

    Attributes:
      threshold: None for classes, a float for yes or no.

    Args:
      threshold: None to predict the class of the largest logit; a float to predict yes where the
        logit is at or above it.
      argname: accepted because `Average` takes it; not used.

    Raises:
      TypeError: if the threshold is no number.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> accuracy = nnx.metrics.Accuracy()
      >>> accuracy.update(logits=jnp.array([[0.1, 0.9], [0.8, 0.2]]), labels=jnp.array([1, 1]))
      >>> float(accuracy.compute())
      0.5
    """

    def __init__(self, threshold: float | None = None, argname: str = "values"):
        check_threshold(threshold)
        super().__init__(argname)
        self.threshold = threshold

    def update(self, *, logits: Any, labels: Any, mask: Any = None) -> None:  # type: ignore[override]
        """Adds the predictions of a batch.

        Args:
          logits: shape `(..., classes)`; with a threshold that of the labels, or one axis of size 1
            more.
          labels: integers of any width, shape `(...)`; booleans too if there is a threshold.
          mask: which predictions count, as for `Average`.

        Raises:
          ValueError: if shapes do not fit, or the labels are no integers.
        """
        predictions, labels = predict(logits, labels, self.threshold)
        self._add(predictions == labels, mask)


class TopKAccuracy(Average):
    """The fraction of labels that are among the k classes of the largest logits.

    Attributes:
      k: how many classes are looked at.

    Args:
      k: as above, at least 1.

    Raises:
      ValueError: if k is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> top = nnx.metrics.TopKAccuracy(k=2)
      >>> top.update(logits=jnp.array([[0.1, 0.7, 0.2]]), labels=jnp.array([2]))
      >>> float(top.compute())
      1.0
    """

    def __init__(self, k: int = 5):
        if k < 1:
            raise ValueError(f"k must be at least 1, found {k}: write `TopKAccuracy(k=5)`")
        super().__init__()
        self.k = k

    def update(self, *, logits: Any, labels: Any, mask: Any = None) -> None:  # type: ignore[override]
        """Adds the predictions of a batch.

        Args:
          logits: shape `(..., classes)`.
          labels: integers, shape `(...)`.
          mask: which predictions count, as for `Average`.

        Raises:
          ValueError: if shapes do not fit, the labels are no integers, or k exceeds the classes.
        """
        _, labels = predict(logits, labels, None)
        logits = jnp.asarray(logits)
        if self.k > logits.shape[-1]:
            raise ValueError(
                f"k={self.k} exceeds the {logits.shape[-1]} classes of the logits: make the metric "
                f"with `TopKAccuracy(k={logits.shape[-1]})` or less"
            )
        _, best = jax.lax.top_k(logits, self.k)
        self._add((best == labels[..., None]).any(axis=-1), mask)


def check_threshold(threshold: Any) -> None:
    """Raises TypeError if a threshold is neither None nor a real number."""
    if threshold is None or (
        isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    ):
        return
    raise TypeError(
        f"threshold must be a float or None, found {threshold!r} of type "
        f"{type(threshold).__name__}: write `threshold=0.5`"
    )


def predict(logits: Any, labels: Any, threshold: float | None) -> tuple[jax.Array, jax.Array]:
    """Turns logits into predicted classes.

    Args:
      logits: shape `(..., classes)`; with a threshold that of the labels, or one axis of size 1
        more.
      labels: integers, or booleans, shape `(...)`.
      threshold: None for classes; else predictions are whether logits are at or above it.

    Returns:
      Predictions and labels as int32 arrays of one shape.

    Raises:
      ValueError: if shapes do not fit, or the labels are no integers.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    binary = threshold is not None
    whole = jnp.issubdtype(labels.dtype, jnp.integer) or (binary and labels.dtype == jnp.bool_)
    if not whole:
        raise ValueError(
            f"labels must be integers, found dtype {labels.dtype}: cast them, "
            "`labels.astype(jnp.int32)`, or turn one-hot labels into classes, `labels.argmax(-1)`"
        )
    if binary and logits.shape == (*labels.shape, 1):
        logits = logits[..., 0]
    elif not binary and logits.shape[-1:] == (1,):
        raise ValueError(
            f"logits of one column, found shape {logits.shape}, always predict class 0: for yes or "
            "no give a threshold, `threshold=0.0` for logits or `threshold=0.5` for probabilities"
        )
    expected = logits.shape if binary else logits.shape[:-1]
    if logits.ndim != labels.ndim + (not binary) or expected != labels.shape:
        rule = (
            "with a threshold, logits have the shape of the labels"
            if binary
            else "without a threshold, logits have one axis more than labels, that of the classes"
        )
        raise ValueError(f"{rule}: found logits {logits.shape} and labels {labels.shape}")
    predictions = logits >= threshold if binary else logits.argmax(axis=-1)
    return predictions.astype(jnp.int32), labels.astype(jnp.int32)
