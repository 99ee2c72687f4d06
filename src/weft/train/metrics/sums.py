"""Sums that stay right over long runs, in two words each.

A float32 has 24 binary digits: 2**24 + 1 is 2**24, and a sum of ones ends there. So a metric keeps
each sum as two float32 *words*: the sum as near as one word comes, under the sum's own name, and
the *rest*, what is missing, under that name and `_rest`. The two together have 48 digits. Words add
up as numbers do: added apart, as `jax.lax.psum` or `.sum(0)` adds those of several metrics, they
are words of the whole.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weft.train.metrics.metric import Metric, MetricState, zero

Words = tuple[Any, Any]
"""A sum and its rest."""


def new_sum(*shape: int) -> tuple[MetricState[jax.Array], MetricState[jax.Array]]:
    """Returns the Variables of a sum, and of its rest."""

    def word() -> MetricState[jax.Array]:
        return MetricState(jnp.asarray(np.zeros(shape, np.float32)))

    return word(), word()


def zero_sums(metric: Metric, *names: str) -> None:
    """Zeroes sums."""
    zero(*(variable for name in names for variable in _variables(metric, name)))


def read_words(metric: Metric, name: str) -> Words:
    """Returns a sum and its rest."""
    total, rest = (variable.get_value() for variable in _variables(metric, name))
    return total, rest


def read_sum(metric: Metric, name: str) -> jax.Array:
    """Returns a sum as one float32."""
    return _nearest(read_words(metric, name))


def add_to_sum(metric: Metric, name: str, *values: Any) -> None:
    """Adds numbers, or arrays of the sum's shape, to a sum."""
    words = read_words(metric, name)
    for value in values:
        words = _add(words, words_of(value))
    for variable, word in zip(_variables(metric, name), words, strict=True):
        variable.set_value(word)


def merge_sum(metric: Metric, other: Metric, name: str) -> None:
    """Adds the sum of another metric; where it has leading axes more, those of all along them."""
    axes = tuple(range(getattr(other, name).ndim - getattr(metric, name).ndim))
    add_to_sum(metric, name, *(word.sum(axes) for word in read_words(other, name)))


def words_of(value: Any) -> Words:
    """Returns a number of any real type as two words."""
    if isinstance(value, int):
        high = np.float32(value)
        return high, np.float32(value - int(high))
    if value.dtype == jnp.float32:
        return value, np.float32(0)
    high = value.astype(jnp.float32)
    return high, (value - high.astype(value.dtype)).astype(jnp.float32)


@jax.jit
def _add(words: Words, added: Words) -> Words:
    """Adds two pairs of words (Knuth, 1969, "The Art of Computer Programming", 4.2.2)."""
    (a, a_rest), (b, b_rest) = _words(words), added
    total = a + b
    part = total - a
    rest = ((a - (total - part)) + (b - part)) + (a_rest + b_rest)
    rest = jnp.where(jnp.isfinite(total), rest, 0.0)
    nearest = total + rest
    return nearest, jnp.where(jnp.isfinite(nearest), rest - (nearest - total), 0.0)


@jax.jit
def _nearest(words: Words) -> jax.Array:
    total, rest = _words(words)
    return total + rest


def _words(words: Words) -> Words:
    """Returns words of which the second is a rest of the first.

    A subclass may write the sum alone, in a `reset` of its own say; what is left in the other word
    is too large then, and counts as nothing.
    """
    total, rest = (jnp.asarray(word, jnp.float32) for word in words)
    return total, jnp.where(jnp.abs(rest) <= 2.0**-22 * jnp.abs(total), rest, 0.0)


def _variables(metric: Metric, name: str) -> tuple[MetricState, MetricState]:
    return getattr(metric, name), getattr(metric, f"{name}_rest")
