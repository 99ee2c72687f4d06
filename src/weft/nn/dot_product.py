"""Scaled dot-product attention as functions.

Queries have the shape (batch..., queries, heads, head_dim), keys and values (batch..., keys,
kv_heads, head_dim); each key head serves the same number of neighbouring query heads (grouped-query
attention). The *kernel* is JAX's own attention function, which may be a fused one; what it cannot
do (dropout, returned weights, values of another size, bfloat16 under strict dtype promotion) is
computed step by step here.
"""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from weft._module import Module
from weft._variable.types import Intermediate
from weft._variable.variable import Variable
from weft.nn.attention_masks import read_mask
from weft.nn.dropout import keep_some, known_rate
from weft.nn.dtypes import Dtype, PromoteDtype, as_array, promote_dtype


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: jax.Array | None = None,
    dropout_rate: float | jax.Array | Variable = 0.0,
    deterministic: bool = False,
    dtype: Dtype | None = None,
    precision: lax.PrecisionLike = None,
    module: Module | None = None,
    promote_dtype: PromoteDtype = promote_dtype,
    is_causal: bool = False,
) -> jax.Array:
    """Returns the values averaged with weights `softmax(query · key / sqrt(head_dim) + bias)`.

    The attention of Vaswani et al., 2017 (https://arxiv.org/abs/1706.03762), with grouped-query
    heads as in Ainslie et al., 2023 (https://arxiv.org/abs/2305.13245).

    Args:
      query: queries of shape (batch..., queries, heads, head_dim).
      key: keys of shape (batch..., keys, kv_heads, head_dim); kv_heads divides heads.
      value: values of shape (batch..., keys, kv_heads, value_dim).
      bias: added to the logits; it broadcasts to (batch..., heads, queries, keys).
      mask: which query may see which key, nonzero for yes; it broadcasts likewise. A query that
        sees no key gets the mean of all values.
      broadcast_dropout: whether all batches and heads drop the same weights.
      dropout_rng: a key for dropout; needed if it drops.
      dropout_rate: the probability of dropping a weight; it may be traced.
      deterministic: whether to drop nothing.
      dtype: the computation dtype; None for what the inputs promote to.
      precision: the precision of the two products.
      module: a module to sow the weights into, as `attention_weights`.
      promote_dtype: how the inputs are cast.
      is_causal: whether query i may see the keys up to i only, beside what `mask` says.

    Returns:
      An array of shape (batch..., queries, heads, value_dim).

    Raises:
      ValueError: if shapes do not fit, if weights are to be dropped without a key, or if the mask
        is one to be added (0 and minus infinity), which is a `bias`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 5, 2, 4))
      >>> nnx.dot_product_attention(q, k, v, is_causal=True).shape
      (1, 5, 2, 4)
      >>> first = nnx.dot_product_attention(q, k, v, is_causal=True)[:, 0]
      >>> bool(jnp.allclose(first, v[:, 0]))  # the first query sees the first key only
      True
    """
    query, key, value = promote_dtype(tuple(map(as_array, (query, key, value))), dtype=dtype)
    logits_shape = _check_shapes(query, key, value)
    bias, mask = _read(bias, mask, logits_shape)
    matmul_precision = _precision_context(precision)
    if (
        known_rate(dropout_rate) == 0
        and module is None
        and value.shape == key.shape
        and matmul_precision is not None
        and _may_be_computed_in_float32(query.dtype)
    ):
        with matmul_precision:
            return _kernel(query, key, value, bias, mask, is_causal)
    weights = dot_product_attention_weights(
        query,
        key,
        bias,
        mask,
        broadcast_dropout,
        dropout_rng,
        dropout_rate,
        deterministic,
        query.dtype,
        precision,
        module,
        promote_dtype,
        is_causal,
    )
    kv_heads = key.shape[-2]
    if kv_heads == query.shape[-2]:
        return jnp.einsum("...hqk,...khd->...qhd", weights, value, precision=precision)
    mixed = jnp.einsum(
        "...hgqk,...khud->...qhgd",
        _split_heads(weights, kv_heads, axis=-3),
        jnp.expand_dims(value, -2),
        precision=precision,
    )
    return mixed.reshape(*query.shape[:-1], value.shape[-1])


def dot_product_attention_weights(
    query: jax.Array,
    key: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: jax.Array | None = None,
    dropout_rate: float | jax.Array | Variable = 0.0,
    deterministic: bool = False,
    dtype: Dtype | None = None,
    precision: lax.PrecisionLike = None,
    module: Module | None = None,
    promote_dtype: PromoteDtype = promote_dtype,
    is_causal: bool = False,
) -> jax.Array:
    """Returns the weights of `dot_product_attention`, of shape (batch..., heads, queries, keys).

    Args:
      query: queries of shape (batch..., queries, heads, head_dim).
      key: keys of shape (batch..., keys, kv_heads, head_dim); kv_heads divides heads.
      bias: added to the logits; it broadcasts to the result's shape.
      mask: which query may see which key, nonzero for yes; it broadcasts likewise. A query that
        sees no key gets the mean of all values.
      broadcast_dropout: whether all batches and heads drop the same weights.
      dropout_rng: a key for dropout; needed if it drops.
      dropout_rate: the probability of dropping a weight; it may be traced.
      deterministic: whether to drop nothing.
      dtype: the computation dtype; None for what the inputs promote to.
      precision: the precision of the product.
      module: a module to sow the weights into, as `attention_weights`.
      promote_dtype: how the inputs are cast.
      is_causal: whether query i may see the keys up to i only.

    Raises:
      ValueError: if shapes do not fit, or if weights are to be dropped without a key.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> q, k = jax.random.normal(jax.random.key(0), (2, 5, 2, 4))
      >>> weights = nnx.nn.attention.dot_product_attention_weights(q, k)
      >>> weights.shape, weights.sum(-1).round(3).tolist()[0]
      ((2, 5, 5), [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    query, key = promote_dtype((as_array(query), as_array(key)), dtype=dtype)
    dtype = query.dtype
    logits_shape = _check_shapes(query, key, key)
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(dtype, jnp.float32)
    scale = jnp.sqrt(jnp.asarray(query.shape[-1], wide)).astype(dtype)
    kv_heads = key.shape[-2]
    # Operand order and the place of the reshape decide the last bits of low-precision gradients.
    if kv_heads == query.shape[-2]:
        logits = jnp.einsum("...qhd,...khd->...hqk", query / scale, key, precision=precision)
    else:
        logits = jnp.einsum(
            "...qhgd,...khud->...hgqk",
            _split_heads(query, kv_heads, axis=-2) / scale,
            jnp.expand_dims(key, -2),
            precision=precision,
        ).reshape(logits_shape)
    bias, visible = _read(bias, mask, logits_shape)
    if bias is not None:
        with jax.numpy_dtype_promotion("standard"):  # a float32 bias keeps its digits
            logits = logits + bias
    if is_causal:
        causal = jnp.tril(jnp.ones(logits_shape[-2:], bool))
        visible = causal if visible is None else visible & causal
    if visible is not None:
        logits = jnp.where(visible, logits, jnp.finfo(dtype).min)
    weights = jax.nn.softmax(logits).astype(dtype)
    if module is not None:
        module.sow(Intermediate, "attention_weights", weights)
    if deterministic or known_rate(dropout_rate) == 0:
        return weights
    return _drop(weights, dropout_rng, dropout_rate, broadcast_dropout)


def _drop(
    weights: jax.Array, rng: jax.Array | None, rate: Any, broadcast_dropout: bool
) -> jax.Array:
    if rng is None:
        raise ValueError(
            f"dot_product_attention drops weights at dropout_rate={rate}, but has no key: pass "
            "`dropout_rng=rngs.dropout()`, or `deterministic=True` to drop nothing"
        )
    if known_rate(rate) == 1:
        return jnp.zeros_like(weights)
    shape = weights.shape
    if broadcast_dropout:
        shape = (1,) * (weights.ndim - 2) + shape[-2:]
    keep, divisor = keep_some(rng, rate, shape, weights.dtype)
    return weights * (keep.astype(weights.dtype) / jnp.asarray(divisor, weights.dtype))


def _kernel(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
    is_causal: bool,
) -> jax.Array:
    """Calls JAX's attention function, which takes one batch axis and a boolean mask."""
    batch = query.shape[:-3]
    if len(batch) != 1:

        def merge_batch(array: jax.Array | None) -> jax.Array | None:
            if array is None:
                return None
            if any(size != 1 for size in array.shape[:-3]):  # sizes of 1 among others: spread
                array = jnp.broadcast_to(array, (*batch, *array.shape[-3:]))
            return array.reshape(-1, *array.shape[-3:])

        query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        bias, mask = merge_batch(bias), merge_batch(mask)
    dtype = query.dtype
    if dtype == jnp.float16 and _is_traced(query, key, value) and jax.default_backend() == "cpu":
        # XLA compiles no float16 product with a float32 result for CPUs.
        query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
    mixed = jax.nn.dot_product_attention(query, key, value, bias, mask, is_causal=is_causal)
    return mixed.astype(dtype).reshape(*batch, *mixed.shape[-3:])


def _may_be_computed_in_float32(dtype: Any) -> bool:
    """Returns whether the kernel, whose logits are float32, has digits and gradients for a dtype.

    The latter are products of float32 with it, which `jax_numpy_dtype_promotion=strict` forbids.
    """
    try:
        return jnp.promote_types(dtype, jnp.float32) == jnp.float32
    except ValueError:
        return False


def _is_traced(*arrays: jax.Array) -> bool:
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def _precision_context(
    precision: lax.PrecisionLike,
) -> contextlib.AbstractContextManager | None:
    """Returns what makes JAX's attention function use a precision, which it takes no argument for.

    None means that it cannot be told.
    """
    if precision is None:
        return contextlib.nullcontext()
    if isinstance(precision, lax.Precision):
        precision = precision.name.lower()
    if isinstance(precision, str):
        with contextlib.suppress(ValueError):  # a name that only single products know
            return jax.default_matmul_precision(precision)
    return None


def _split_heads(x: jax.Array, kv_heads: int, axis: int) -> jax.Array:
    """Splits the axis of the query heads into (kv_heads, heads of a group)."""
    axis += x.ndim
    groups = x.shape[axis] // kv_heads
    return x.reshape(*x.shape[:axis], kv_heads, groups, *x.shape[axis + 1 :])


def _check_shapes(query: Any, key: Any, value: Any) -> tuple[int, ...]:
    """Returns the shape of the logits, (batch..., heads, queries, keys)."""
    found = f"query {query.shape}, key {key.shape}, value {value.shape}"
    ranks = {query.ndim, key.ndim, value.ndim}
    if len(ranks) != 1 or query.ndim < 3:
        raise ValueError(
            "attention expects query, key and value of one rank, (batch..., length, heads, "
            f"head_dim), found {found}: add the missing axes, `key[None]`"
        )
    *batch, queries, heads, head_dim = query.shape
    *key_batch, keys, kv_heads, key_dim = key.shape
    if batch != key_batch or head_dim != key_dim or key.shape[:-1] != value.shape[:-1]:
        raise ValueError(
            "attention expects key and value of the query's batch and of one length and number of "
            f"heads, and a key of the query's head_dim, found {found}"
        )
    if heads % kv_heads:
        raise ValueError(
            f"grouped-query attention expects a number of query heads that the number of key heads "
            f"divides, found {heads} and {kv_heads} in {found}"
        )
    return (*batch, heads, queries, keys)


def _read(
    bias: jax.Array | None, mask: jax.Array | None, logits_shape: tuple[int, ...]
) -> tuple[jax.Array | None, jax.Array | None]:
    """Returns bias and boolean mask with as many axes as the logits."""
    mask, added = (None, None) if mask is None else read_mask(mask)
    mask, added = (_as_logits(array, "mask", logits_shape) for array in (mask, added))
    bias = _as_logits(bias, "bias", logits_shape)
    if bias is None or added is None:
        bias = added if bias is None else bias
    else:
        with jax.numpy_dtype_promotion("standard"):
            bias = bias + added
    if bias is not None and jnp.issubdtype(bias.dtype, jnp.floating):
        # Minus infinity becomes a number beside which logits are nothing: there is no softmax of a
        # row of infinities.
        with jax.numpy_dtype_promotion("standard"):
            bias = bias.astype(jnp.promote_types(bias.dtype, jnp.float32))
        bias = jnp.maximum(bias, 0.7 * float(jnp.finfo(bias.dtype).min))
    return bias, mask


def _as_logits(
    array: jax.Array | None, name: str, logits_shape: tuple[int, ...]
) -> jax.Array | None:
    """Returns a bias or mask with as many axes as the logits; raises if it does not fit them."""
    if array is None:
        return None
    array = jnp.asarray(array)
    shape = (1,) * (len(logits_shape) - array.ndim) + array.shape
    fits = [have in (1, want) for have, want in zip(shape, logits_shape, strict=False)]
    if len(shape) != len(logits_shape) or not all(fits):
        raise ValueError(
            f"attention expects a {name} that broadcasts to (batch..., heads, queries, keys) = "
            f"{logits_shape}, found shape {array.shape}"
        )
    return array.reshape(shape)
