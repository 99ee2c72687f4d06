"""Rotary position embedding: positions told to attention by rotating queries and keys.

Feature i and feature i + size/2 form a pair, which is rotated by the angle
`position * theta ** (-2 i / size)`; the product of a query and a key then depends on the distance
of their positions only.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from weft._module import Module
from weft._variable.variable import Variable
from weft.nn.dot_product import dot_product_attention
from weft.nn.dtypes import as_array, inexact_dtype


class RoPE(Module):
    """Rotates features by position (Su et al., 2021, https://arxiv.org/abs/2104.09864).

    Without a table the angles are computed at each call, for any size and length; with
    `embedding_size` and `max_seq_len` sine and cosine are computed once and looked up.

    Args:
      theta: the base of the wavelengths.
      embedding_size: the number of features that the table is for.
      max_seq_len: the number of positions that the table is for.

    Attributes:
      theta: the base of the wavelengths.
      cached_sin: `Variable` of shape (max_seq_len, embedding_size / 2), or None.
      cached_cos: `Variable` of shape (max_seq_len, embedding_size / 2), or None.

    Raises:
      ValueError: if only one of the sizes is given, or if the number of features is odd.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> x = jnp.ones((2, 4))
      >>> y = nnx.RoPE()(x)
      >>> bool((y[0] == x[0]).all()), bool((y[1] == x[1]).any())  # position 0 stays as it is
      (True, False)
    """

    def __init__(
        self,
        theta: float = 10000.0,
        embedding_size: int | None = None,
        max_seq_len: int | None = None,
    ):
        if (embedding_size is None) != (max_seq_len is None):
            raise ValueError(
                "RoPE expects both embedding_size and max_seq_len, for a table, or neither, found "
                f"embedding_size={embedding_size} and max_seq_len={max_seq_len}"
            )
        self.theta = theta
        self.cached_sin: Variable[jax.Array] | None = None
        self.cached_cos: Variable[jax.Array] | None = None
        if embedding_size is not None:
            # In the widest floats there are: they are rounded to what an input needs.
            dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
            sin, cos = _angles(theta, embedding_size, jnp.arange(max_seq_len), dtype)
            self.cached_sin, self.cached_cos = Variable(sin), Variable(cos)

    def __call__(self, x: jax.Array, input_positions: jax.Array | None = None) -> jax.Array:
        """Returns the input rotated, in float32 or wider.

        Args:
          x: an array of shape (..., length, features).
          input_positions: the positions, of shape (length,) or one that broadcasts to
            (..., length); None for 0, 1, ...

        Raises:
          ValueError: if the number of features is odd or not the table's, if a position is not in
            the table, or if the positions do not fit. Positions that are traced cannot be
            checked: one that is not in the table gives NaN.
        """
        x = as_array(x)
        if x.ndim < 2:
            raise ValueError(
                f"RoPE expects an input of shape (..., length, features), found shape {x.shape}"
            )
        half = x.shape[-1] // 2
        with jax.numpy_dtype_promotion("standard"):
            wide = jnp.promote_types(x.dtype, jnp.float32)
        sin, cos = _rotation(self, x.shape, input_positions, wide)
        sin, cos = (jnp.concatenate([table, table], axis=-1) for table in (sin, cos))
        with jax.numpy_dtype_promotion("standard"):  # the angles are float32 whatever x is
            straight = x * _with_rank(cos, x.ndim)
            turned = jnp.concatenate([-x[..., half:], x[..., :half]], axis=-1)
            return straight + turned * _with_rank(sin, x.ndim)


def _rotation(
    layer: Any, shape: tuple[int, ...], positions: Any, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """Returns sine and cosine for an input of a shape, (..., length, features / 2)."""
    *_, length, size = shape
    if positions is not None:
        positions = jnp.asarray(positions)
        _check_positions(positions.shape, shape[:-1])
    if layer.cached_sin is None or layer.cached_cos is None:
        if positions is None:
            positions = jnp.arange(length)
        return _angles(layer.theta, size, positions, dtype)
    sin, cos = (t.get_value().astype(dtype) for t in (layer.cached_sin, layer.cached_cos))
    max_seq_len, half = sin.shape
    if size != 2 * half:
        raise ValueError(
            f"this RoPE has a table for embedding_size={2 * half}, found {size} features: "
            f"make `nnx.RoPE(embedding_size={size}, max_seq_len={max_seq_len})`, or one "
            "without a table, `nnx.RoPE()`"
        )
    low, high = _range_of(positions, length)
    if low < 0 or high >= max_seq_len:
        raise ValueError(
            f"this RoPE has a table for max_seq_len={max_seq_len}, positions 0 to "
            f"{max_seq_len - 1}, found positions {low} to {high}: make it longer, "
            f"`nnx.RoPE(embedding_size={size}, max_seq_len={high + 1})`"
        )
    if positions is None:
        return sin[:length], cos[:length]
    # Negative positions would count from the end.
    inside = jnp.where(positions < 0, max_seq_len, positions.astype(jnp.int32))
    sin, cos = (
        jnp.take(table, inside, axis=0, mode="fill", fill_value=jnp.nan) for table in (sin, cos)
    )
    return sin, cos


def _angles(
    theta: float, size: int, positions: jax.Array, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """Returns sine and cosine of the angles of all pairs, of shape (positions..., size / 2)."""
    if size <= 0 or size % 2:
        raise ValueError(
            f"RoPE rotates pairs of features, so that their number must be even, found {size}"
        )
    powers = jnp.arange(0, size, 2, dtype=dtype) / size
    frequencies = 1.0 / (theta**powers)
    angles = jnp.expand_dims(positions.astype(dtype), -1) * frequencies
    return jnp.sin(angles), jnp.cos(angles)


def _with_rank(table: jax.Array, ndim: int) -> jax.Array:
    return table.reshape((1,) * (ndim - table.ndim) + table.shape)


def _check_positions(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    sizes = zip(reversed(found), reversed(wanted), strict=False)
    fits = 0 < len(found) <= len(wanted) and all(have in (1, want) for have, want in sizes)
    if not fits or found[-1] != wanted[-1]:
        raise ValueError(
            f"RoPE expects input_positions of shape ({wanted[-1]},), or one that broadcasts to "
            f"{wanted}, found {found}: one position per element of the sequence"
        )


def _range_of(positions: jax.Array | None, length: int) -> tuple[int, int]:
    """Returns the lowest and highest position, as far as it is known; 0, -1 for none."""
    if positions is None:
        return 0, length - 1
    if isinstance(positions, jax.core.Tracer) or not positions.size:
        return 0, -1
    return int(positions.min()), int(positions.max())


def dot_product_attention_with_rope(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    rope: RoPE,
    input_positions: jax.Array | None = None,
    **kwargs: Any,
) -> jax.Array:
    """Rotates queries and keys by position, then calls `dot_product_attention`.

    Give it to `MultiHeadAttention` as `attention_fn=functools.partial(
    nnx.dot_product_attention_with_rope, rope=rope)`; while decoding, the queries then take their
    positions from the cache.

    Args:
      query: queries of shape (batch..., queries, heads, head_dim).
      key: keys of shape (batch..., keys, kv_heads, head_dim).
      value: values of shape (batch..., keys, kv_heads, value_dim).
      rope: what rotates.
      input_positions: positions of the queries, of shape (queries,) or one that broadcasts to
        (batch..., queries). They hold for the keys too if there are as many; otherwise, as in a
        cache, key i has position i. None for 0, 1, ... for both.
      **kwargs: arguments of `dot_product_attention`.

    Returns:
      An array of shape (batch..., queries, heads, value_dim).

    Raises:
      ValueError: as `RoPE` and `dot_product_attention`.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 5, 2, 4))
      >>> nnx.dot_product_attention_with_rope(q, k, v, rope=nnx.RoPE()).shape
      (1, 5, 2, 4)
    """
    query, key = as_array(query), as_array(key)
    same_length = query.shape[-3] == key.shape[-3]
    key_positions = input_positions if same_length else None

    def rotate(heads: jax.Array, positions: jax.Array | None) -> jax.Array:
        rotated = jax.vmap(lambda head: rope(head, positions), in_axes=-2, out_axes=-2)(heads)
        return rotated.astype(inexact_dtype(heads.dtype))

    query, key = rotate(query, input_positions), rotate(key, key_positions)
    return dot_product_attention(query, key, value, **kwargs)
