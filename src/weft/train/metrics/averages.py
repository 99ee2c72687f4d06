"""Means and deviations of values, with masks."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from weft.train.metrics.metric import Keywords, Metric
from weft.train.metrics.sums import (
    add_to_sum,
    merge_sum,
    new_sum,
    read_sum,
    read_words,
    zero_sums,
)


class Average(Metric):
    """The mean of the values of all batches.

    It stays right over any number of values, of any real dtype.

    Attributes:
      argname: the keyword under which `update` takes the values.
      total: the sum of the values, float32; beside it `total_rest`, what float32 cannot hold of it.
      count: how many they are, float32, since an int32 ends at 2**31; beside it `count_rest`.

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
        self.total, self.total_rest = new_sum()
        self.count, self.count_rest = new_sum()

    def keywords(self) -> Keywords:
        own = type(self).update is not Average.update
        return super().keywords() if own else _values_keywords(self.argname)

    def reset(self) -> None:
        """Zeroes the sums."""
        zero_sums(self, "total", "count")

    def merge(self, *others: Self) -> None:  # type: ignore[override]
        """Adds what other metrics have gathered; see `Metric.merge`."""
        for other in self.mergeable(others):
            for name in ("total", "count"):
                merge_sum(self, other, name)

    def update(self, mask: Any = None, **kwargs: Any) -> None:
        """Adds the values of a batch.

        Args:
          mask: which values count: booleans, or real numbers, by which the values are weighted: 2
            counts a value twice, 0.0 leaves it out, even if it is NaN. Its shape broadcasts to that
            of the values. None for all.
          **kwargs: the values under the name `argname`: an array of any shape, or a number.

        Raises:
          TypeError: for other keywords, or a mask of other than real numbers.
          ValueError: if the mask does not broadcast to the values.
        """
        _values_keywords(self.argname).check(f"{type(self).__name__}.update", kwargs)
        self._add(jnp.asarray(kwargs[self.argname]), mask)

    def compute(self) -> jax.Array:
        """Returns the mean, a float32 scalar; NaN before any value."""
        return read_sum(self, "total") / read_sum(self, "count")

    def _add(self, values: jax.Array, mask: Any) -> None:
        total, count = masked_sum(values, mask)
        add_to_sum(self, "total", total)
        add_to_sum(self, "count", count)


class Welford(Metric):
    """Mean, standard deviation and standard error of the mean, in one pass.

    Batches are merged as in Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise
    algorithm for computing sample variances"; the single pass is due to Welford (1962).

    Attributes:
      argname: the keyword under which `update` takes the values.
      count: how many values there are, float32; beside it `count_rest`, as for `Average`.
      mean: their mean, float32; beside it `mean_rest`.
      m2: the sum of their squared distances from it, float32; beside it `m2_rest`.

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
        self.count, self.count_rest = new_sum()
        self.mean, self.mean_rest = new_sum()
        self.m2, self.m2_rest = new_sum()

    def keywords(self) -> Keywords:
        own = type(self).update is not Welford.update
        return super().keywords() if own else _values_keywords(self.argname)

    def reset(self) -> None:
        """Zeroes the sums."""
        zero_sums(self, "count", "mean", "m2")

    def update(self, mask: Any = None, **kwargs: Any) -> None:
        """Adds the values of a batch.

        Args:
          mask: which values count, as for `Average`.
          **kwargs: the values under the name `argname`: an array of any shape, or a number.

        Raises:
          TypeError: for other keywords, or a mask of other than real numbers.
          ValueError: if the mask does not broadcast to the values.
        """
        _values_keywords(self.argname).check("Welford.update", kwargs)
        values = jnp.asarray(kwargs[self.argname]).astype(jnp.float32)
        total, count = masked_sum(values, mask)
        n = jnp.asarray(count, jnp.float32)
        if mask is None and values.size:
            mean, variance = values.mean(), values.var()
        else:
            mean = total / _or_one(n)
            variance = masked_sum((values - mean) ** 2, mask)[0] / _or_one(n)
        self._combine(count, mean, variance * n)

    def merge(self, *others: Self) -> None:  # type: ignore[override]
        """Adds what other metrics have gathered; see `Metric.merge`."""
        for other in self.mergeable(others):
            ndim = self.count.get_value().ndim
            count, mean, m2 = (read_sum(other, name) for name in ("count", "mean", "m2"))
            axes = tuple(range(count.ndim - ndim))
            total = count.sum(axes)
            whole = (count * mean).sum(axes) / _or_one(total)
            self._combine(total, whole, m2.sum(axes) + (count * (mean - whole) ** 2).sum(axes))

    def compute(self) -> Statistics:
        """Returns the statistics; deviation and error are NaN before any value."""
        count, mean, m2 = (read_sum(self, name) for name in ("count", "mean", "m2"))
        deviation = jnp.sqrt(m2 / count)
        return Statistics(
            mean=mean,
            standard_error_of_mean=deviation / jnp.sqrt(count),
            standard_deviation=deviation,
        )

    def _combine(self, count: Any, mean: jax.Array, m2: jax.Array) -> None:
        """Adds `count` values of a mean and a sum of squared distances from it."""
        n, old = jnp.asarray(count, jnp.float32), read_sum(self, "count")
        new = _or_one(old + n)
        own, rest = read_words(self, "mean")
        delta = (mean - own) - rest
        add_to_sum(self, "mean", delta * n / new)
        add_to_sum(self, "m2", m2 + delta * delta * old * n / new)
        add_to_sum(self, "count", count)


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
    """Returns a mask of booleans or real numbers, broadcast to a shape.

    Raises:
      TypeError: if it holds neither.
      ValueError: if it does not broadcast.
    """
    mask = jnp.asarray(mask)
    if not (mask.dtype == jnp.bool_ or jnp.issubdtype(mask.dtype, jnp.number)) or (
        jnp.issubdtype(mask.dtype, jnp.complexfloating)
    ):
        raise TypeError(
            f"a mask holds booleans or real numbers, found dtype {mask.dtype}: write "
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
    """Returns the sum of the values that count, and how many they are.

    Args:
      values: an array of any shape and real dtype.
      mask: None, or what `as_mask` takes.

    Returns:
      The sum, in float32, or float64 for values of 64 bits, and the number or sum of weights.
    """
    values = _wide(values)
    if mask is None:
        return values.sum(), values.size
    mask = as_mask(mask, values.shape)
    # Selected, not multiplied: a masked NaN counts as nothing.
    kept = jnp.where(mask.astype(bool), values, jnp.zeros((), values.dtype))
    if mask.dtype != jnp.bool_:
        kept = kept * mask.astype(values.dtype)
    return kept.sum(), _wide(mask).sum()


def _wide(array: jax.Array) -> jax.Array:
    """Returns an array in a floating point dtype whose sums neither overflow nor stand still."""
    return array.astype(jnp.float64 if array.dtype.itemsize == 8 else jnp.float32)


def _or_one(n: jax.Array) -> jax.Array:
    """Returns a divisor: 1 stands for a count of zero."""
    return jnp.where(n > 0, n, 1.0)


def _values_keywords(argname: str) -> Keywords:
    return Keywords(required=frozenset({argname}), optional=frozenset({"mask"}))
