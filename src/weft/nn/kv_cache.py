"""The cache of keys and values that attention decodes with.

It consists of three Variables: keys and values of the positions seen so far, in the order of the
sequence, both of shape (batch..., max_length, kv_heads, head_dim), and the *index*, the number of
positions seen. A *step* is one call, with the next one or several elements of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from weft._variable.types import Cache
from weft.nn.attention_masks import visible_in


class Step(NamedTuple):
    """What one step attends to.

    Attributes:
      positions: the positions of the queries, int32 of shape (queries,).
      key: all keys of the cache, in the dtype of the new ones.
      value: all values of the cache, likewise.
      visible: which query may see which key, of shape (batch..., 1, queries, max_length).
    """

    positions: jax.Array
    key: jax.Array
    value: jax.Array
    visible: jax.Array


def extend_cache(
    cached_key: Cache[jax.Array],
    cached_value: Cache[jax.Array],
    cache_index: Cache[jax.Array],
    key: jax.Array,
    value: jax.Array,
    *,
    num_queries: int,
    remedy: Callable[[tuple[int, ...]], str],
) -> Step:
    """Writes the keys and values of a step at the index, and moves it.

    Args:
      cached_key: the keys.
      cached_value: the values.
      cache_index: the index.
      key: new keys, of shape (batch..., queries, kv_heads, head_dim).
      value: new values, likewise.
      num_queries: how many queries there are.
      remedy: says how to make a cache for (batch..., max_length), for the errors.

    Raises:
      ValueError: if the shapes do not fit the cache or each other, or if the cache is full. The
        latter cannot be seen where the index is traced, as under jit.
    """
    *batch, max_length, heads, head_dim = cached_key.get_value().shape
    *new_batch, length, new_heads, new_head_dim = key.shape
    if (batch, heads, head_dim) != (new_batch, new_heads, new_head_dim) or length != num_queries:
        raise ValueError(
            f"the cache takes keys of shape {(*batch, num_queries, heads, head_dim)}, of its own "
            "batch and as many as there are queries, found keys of shape "
            f"{key.shape}: make a cache for this batch, `{remedy((*new_batch, max_length))}`"
        )
    index = cache_index.get_value()
    seen = 0 if isinstance(index, jax.core.Tracer) else int(index)
    if seen + length > max_length:
        raise ValueError(
            f"the cache is full: {length} more position(s) do not fit after {seen} of "
            f"max_length={max_length}: make a longer cache, or an empty one, "
            f"`{remedy((*batch, max_length))}`"
        )

    def write(cache: Cache[jax.Array], new: jax.Array) -> jax.Array:
        old = cache.get_value()
        whole = lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), index, old.ndim - 3)
        cache.set_value(whole)
        return whole.astype(new.dtype)

    keys, values = write(cached_key, key), write(cached_value, value)
    cache_index.set_value(index + length)
    positions = index + jnp.arange(length, dtype=index.dtype)
    visible = jnp.arange(max_length, dtype=index.dtype) <= jnp.expand_dims(positions, -1)
    visible = jnp.broadcast_to(visible, (*batch, 1, length, max_length))
    return Step(positions, keys, values, visible)


def combine_step_mask(mask: jax.Array, visible: jax.Array) -> jax.Array:
    """Returns `visible` where a user's mask lets through.

    Raises:
      ValueError: if the mask does not speak of the queries of the step and the whole cache, so
        that it cannot be told which of its rows are meant, or if it is an additive one.
    """
    *_, queries, max_length = visible.shape
    *_, rows, columns = (1, 1, *mask.shape)
    if rows not in (1, queries) or columns not in (1, max_length):
        raise ValueError(
            f"while decoding, a mask must broadcast to (batch..., heads, {queries}, {max_length}), "
            "the queries of the step and all positions of the cache, found shape "
            f"{mask.shape}: take the rows of the step, `mask[..., step : step + 1, :]`, and pad "
            "the keys to max_length"
        )
    return visible & visible_in(mask)
