"""Attention masks: which query may see which key.

A mask has the shape (batch..., heads, queries, keys), where an axis of size 1 stands for all; a
nonzero element lets the query see the key. An *additive* mask, as other libraries have them, is a
bias: 0 lets the query see the key, a large negative number does not. Taken for a mask it would say
the contrary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from weft.nn.dtypes import Dtype


def read_mask(mask: Any) -> tuple[jax.Array, jax.Array | None]:
    """Returns a mask as booleans, and what it adds to the logits.

    Args:
      mask: booleans or real numbers. Where traced numbers turn out to hold negative ones, they are
        an additive mask.

    Returns:
      The mask, and numbers of its shape, or None for nothing.

    Raises:
      ValueError: if it is an additive mask, as far as that can be seen.
    """
    given, mask = mask, jnp.asarray(mask)
    if mask.dtype == jnp.bool_ or jnp.issubdtype(mask.dtype, jnp.unsignedinteger):
        return mask.astype(bool), None
    if isinstance(given, jax.core.Tracer):
        additive = (mask < 0).any()
        with jax.numpy_dtype_promotion("standard"):
            wide = jnp.promote_types(mask.dtype, jnp.float32)
        return mask.astype(bool) | additive, jnp.where(additive, mask, 0).astype(wide)
    with jax.ensure_compile_time_eval():  # under jit as well
        additive = bool((jnp.asarray(given) < 0).any())
    if additive:
        raise ValueError(
            "attention takes a mask that is nonzero where the query may see the key, found one "
            "with negative numbers: an additive mask is a bias, `bias=mask`; where there is no "
            "such argument, write `mask=mask == 0`"
        )
    return mask.astype(bool), None


def visible_in(mask: Any) -> jax.Array:
    """Returns a mask as booleans; of a traced additive one the zeros. Raises as `read_mask`."""
    visible, added = read_mask(mask)
    return visible if added is None else visible & (added == 0)


def make_attention_mask(
    query_input: jax.Array,
    key_input: jax.Array,
    pairwise_fn: Callable[[jax.Array, jax.Array], Any] = jnp.multiply,
    extra_batch_dims: int = 0,
    dtype: Dtype = jnp.float32,
) -> jax.Array:
    """Returns a mask that a function makes of every pair of a query and a key.

    Args:
      query_input: one number per query, of shape (batch..., queries).
      key_input: one number per key, of shape (batch..., keys).
      pairwise_fn: makes the mask of two numbers, elementwise.
      extra_batch_dims: how many axes of size 1 to put in front.
      dtype: the dtype of the mask.

    Returns:
      A mask of shape (batch..., 1, queries, keys).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> present = jnp.array([1, 1, 0])  # the last token is padding
      >>> nnx.make_attention_mask(present, present, dtype=bool).astype(int).tolist()
      [[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]
    """
    pairs = pairwise_fn(jnp.expand_dims(query_input, -1), jnp.expand_dims(key_input, -2))
    mask = jnp.expand_dims(pairs, (*range(extra_batch_dims), pairs.ndim - 2 + extra_batch_dims))
    return mask.astype(dtype)


def make_causal_mask(
    x: jax.Array, extra_batch_dims: int = 0, dtype: Dtype = jnp.float32
) -> jax.Array:
    """Returns a mask that lets each element of a sequence see itself and those before it.

    Args:
      x: an array of shape (batch..., length); only the shape counts.
      extra_batch_dims: how many axes of size 1 to put in front.
      dtype: the dtype of the mask.

    Returns:
      A mask of shape (batch..., 1, length, length).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.make_causal_mask(jnp.ones(3)).tolist()
      [[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]]
    """
    positions = jnp.broadcast_to(jnp.arange(x.shape[-1], dtype=jnp.int32), x.shape)
    return make_attention_mask(
        positions, positions, jnp.greater_equal, extra_batch_dims=extra_batch_dims, dtype=dtype
    )


def combine_masks(*masks: jax.Array | None, dtype: Dtype = jnp.float32) -> jax.Array | None:
    """Returns the mask that lets through what all the masks let through.

    Args:
      *masks: masks of one rank, and of shapes that broadcast; None lets everything through.
      dtype: the dtype of the result.

    Returns:
      The mask, or None if there is none among `masks`.

    Raises:
      ValueError: if the ranks differ, or if one is an additive mask.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> padding = jnp.array([[[True, True, False]]])
      >>> nnx.combine_masks(nnx.make_causal_mask(jnp.ones(3)), padding).tolist()
      [[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]]
    """
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    if len({mask.ndim for mask in given}) > 1:
        raise ValueError(
            "combine_masks expects masks of one rank, found shapes "
            f"{[mask.shape for mask in given]}: add axes of size 1 where they belong, `mask[None]`"
        )
    if len(given) == 1:
        return given[0].astype(dtype)
    combined = visible_in(given[0])
    for mask in given[1:]:
        combined = combined & visible_in(mask)
    return combined.astype(dtype)
