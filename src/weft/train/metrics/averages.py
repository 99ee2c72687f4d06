"""Means and deviations of values, with masks."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from weft.train.metrics.metric import Keywords, Metric, MetricState, zero


class Average(Metric):
    """The mean of the values of all batches.

    Sums are kept in float32, whatever the dtype of the values.

    Attributes:
      argname: the keyword under which `update` takes the values.

    Args:
      argname: as above.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> loss = nnx.metrics.Average("loss")
      >>> loss.update(loss=jnp.array([1.0, 2.0]))
      >>> loss.update(loss=jnp.array([5.0, 9.0]), mask=jnp.array([True, False]))
      >>> round(float(loss.compute()), 4)
      2.6667
    """

    def __init__(self, argname: str = "values"):
        self.argname = argname
        self.total = MetricState(jnp.array(0, dtype=jnp.float32))
        self.count = MetricState(jnp.array(0, dtype=jnp.int32))

    def keywords(self) -> Keywords:
        own = type(self).update is not Average.update
        return super().keywords() if own else _values_keywords(self.argname)

    def reset(self) -> None:
        """Zeroes the sums."""
        zero(self.total, self.count)

    def update(self, mask: Any = None, **kwargs: Any) -> None:
        """Adds the values of a batch.

        Args:
          mask: which values count: booleans, or integers to count a value several times, of a
            shape that broadcasts to that of the values. None for all.
          **kwargs: the values under the name `argname`: an array of any shape, or a number.

        Raises:
          TypeError: for other keywords, or a mask of floats.
          ValueError: if the mask does not broadcast to the values.
        """
        _values_keywords(self.argname).check(f"{type(self).__name__}.update", kwargs)
        self._add(jnp.asarray(kwargs[self.argname]), mask)

    def compute(self) -> jax.Array:
        """Returns the mean, a float32 scalar; NaN before any value."""
        return self.total.get_value() / self.count.get_value().astype(jnp.float32)

    def _add(self, values: jax.Array, mask: Any) -> None:
        total, count = masked_sum(values, mask)
        self.total.set_value(self.total.get_value() + total)
        self.count.set_value(self.count.get_value() + count)


class Welford(Metric):
    """Mean, standard deviation and standard error of the mean, in one pass.

    Batches are merged as in Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise
    algorithm for computing sample variances"; the single pass is due to Welford (1962).

    Attributes:
      argname: the keyword under which `update` takes the values.

    Args:
      argname: as above.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> metric = nnx.metrics.Welford()
      >>> metric.update(values=jnp.array([1.0, 3.0]))
      >>> float(metric.compute().mean), float(metric.compute().standard_deviation)
      (2.0, 1.0)
    """

    def __init__(self, argname: str = "values"):
        self.argname = argname
        self.count = MetricState(jnp.array(0, dtype=jnp.int32))
        self.mean = MetricState(jnp.array(0, dtype=jnp.float32))
        self.m2 = MetricState(jnp.array(0, dtype=jnp.float32))

    def keywords(self) -> Keywords:
        own = type(self).update is not Welford.update
        return super().keywords() if own else _values_keywords(self.argname)

    def reset(self) -> None:
        """Zeroes the sums."""
        zero(self.count, self.mean, self.m2)

    def update(self, mask: Any = None, **kwargs: Any) -> None:
        """Adds the values of a batch.

        Args:
          mask: which values count, as for `Average`.
          **kwargs: the values under the name `argname`: an array of any shape, or a number.

        Raises:
          TypeError: for other keywords, or a mask of floats.
          ValueError: if the mask does not broadcast to the values.
        """
        _values_keywords(self.argname).check("Welford.update", kwargs)
        values = jnp.asarray(kwargs[self.argname]).astype(jnp.float32)
        total, size = masked_sum(values, mask)
        size = jnp.asarray(size, jnp.int32)
        count = self.count.get_value()
        # Where nothing is counted yet, 1 stands for the count: no division by zero.
        n, old, new = (x.astype(jnp.float32) for x in (size, count, jnp.maximum(count + size, 1)))
        if mask is None and values.size:
            mean, variance = values.mean(), values.var()
        else:
            mean = total / jnp.maximum(n, 1)
            variance = masked_sum((values - mean) ** 2, mask)[0] / jnp.maximum(n, 1)
        delta = mean - self.mean.get_value()
        self.mean.set_value(self.mean.get_value() + delta * n / new)
        self.m2.set_value(self.m2.get_value() + (variance * n + delta * delta * old * n / new))
        self.count.set_value(count + size)

    def compute(self) -> Statistics:
        """Returns the statistics; deviation and error are NaN before any value."""
        count = self.count.get_value().astype(jnp.float32)
        deviation = jnp.sqrt(self.m2.get_value() / count)
        return Statistics(
            mean=self.mean.get_value(),
            standard_error_of_mean=deviation / jnp.sqrt(count),
            standard_deviation=deviation,
        )


@jtu.register_dataclass
@dataclasses.dataclass(frozen=True)
class Statistics:
    """What `Welford` computes; a pytree of scalars.

    Attributes:
      mean: the mean, float32.
      standard_error_of_mean: the standard deviation over the root of the count, float32.
      standard_deviation: the root of the mean square distance from the mean, float32.

    Example:
      >>> import weft as nnx
      >>> nnx.metrics.Statistics(2.0, 0.5, 1.0).replace(mean=3.0).mean
      3.0
    """

    mean: jax.Array
    standard_error_of_mean: jax.Array
    standard_deviation: jax.Array

    def replace(self, **updates: Any) -> Self:
        """Returns a copy with other values for the named fields."""
        return dataclasses.replace(self, **updates)


def as_mask(mask: Any, shape: tuple[int, ...]) -> jax.Array:
    """Returns a mask of booleans or integers, broadcast to a shape.

    Raises:
      TypeError: if it holds neither.
      ValueError: if it does not broadcast.
    """
    mask = jnp.asarray(mask)
    if not (mask.dtype == jnp.bool_ or jnp.issubdtype(mask.dtype, jnp.integer)):
        raise TypeError(
            f"a mask holds booleans or integers, found dtype {mask.dtype}: write "
            "`mask=mask.astype(bool)`"
        )
    try:
        return jnp.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(
            f"the mask of shape {mask.shape} does not broadcast to the values of shape {shape}: "
            "give one mask per metric, `mask={'accuracy': mask}`, or add axes, `mask[:, None]`"
        ) from None


def masked_sum(values: jax.Array, mask: Any) -> tuple[jax.Array, jax.Array | int]:
    """Returns the sum of the values that count, in float32, and how many they are.

    Args:
      values: an array of any shape and real dtype.
      mask: None, or what `as_mask` takes.
    """
    if values.dtype == jnp.bool_:
        values = values.astype(jnp.int32)
    dtype = jnp.float32 if jnp.issubdtype(values.dtype, jnp.floating) else None
    if mask is None:
        return values.sum(dtype=dtype).astype(jnp.float32), values.size
    mask = as_mask(mask, values.shape)
    # Selected, not multiplied: a masked NaN counts as nothing.
    kept = jnp.where(mask.astype(bool), values, jnp.zeros((), values.dtype))
    if mask.dtype != jnp.bool_:
        kept = kept * mask.astype(kept.dtype)
    return kept.sum(dtype=dtype).astype(jnp.float32), mask.sum(dtype=jnp.int32)


def _values_keywords(argname: str) -> Keywords:
    return Keywords(required=frozenset({argname}), optional=frozenset({"mask"}))
