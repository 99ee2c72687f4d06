"""Helpers and types of layers, with the signatures that code of the NNX API knows.

Layers of Weft use `moments.py` and others, which these stand in front of. They can be had from
`nn.linear`, `nn.normalization` and the other modules that such code imports them from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from weft.nn import dtypes
from weft.nn.conv import channels_last
from weft.nn.moments import Axes, apply_moments, compute_moments, normalized_axes
from weft.nn.padding import Padding

Array = jax.Array
Dtype = dtypes.Dtype
Shape = Sequence[int]
Axis = int
Size = int | Sequence[int]
PaddingLike = Padding
LaxPadding = str | Sequence[tuple[int, int]]
PrecisionLike = jax.lax.PrecisionLike
PromoteDtypeFn = dtypes.PromoteDtype
DotGeneralT = ConvGeneralDilatedT = EinsumT = Callable[..., jax.Array]


# -- nn.linear
def conv_dimension_numbers(input_shape: Shape) -> lax.ConvDimensionNumbers:
    """Returns which axes are batch, channels and space where channels are last."""
    return channels_last(len(input_shape) - 2)


# -- nn.normalization
def canonicalize_axes(rank: int, axes: Axes) -> tuple[int, ...]:
    """Returns axes as a sorted tuple of distinct numbers from 0."""
    axes = (axes,) if isinstance(axes, int) else axes
    return normalized_axes(sorted({axis % rank for axis in axes}), rank)


def compute_stats(
    x: jax.Array,
    axes: Axes,
    dtype: Dtype | None,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    use_mean: bool = True,
    use_fast_variance: bool = True,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance over some axes, in `dtype` or float32, whichever is wider."""
    with jax.numpy_dtype_promotion("standard"):
        least = jnp.promote_types(jnp.asarray(x).dtype if dtype is None else dtype, jnp.float32)
    x = jnp.asarray(x, least)
    mean, var = compute_moments(
        x,
        canonicalize_axes(x.ndim, axes),
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        use_mean=use_mean,
        use_fast_variance=use_fast_variance,
        mask=mask,
    )
    return jnp.zeros_like(var) if mean is None else mean, var


def normalize(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    reduction_axes: Axes,
    feature_axes: Axes,
    dtype: Dtype | None,
    epsilon: float,
) -> jax.Array:
    """Returns `(x - mean) / sqrt(var + epsilon) * scale + bias`."""
    return apply_moments(
        x,
        mean,
        var,
        scale,
        bias,
        reduction_axes=canonicalize_axes(x.ndim, reduction_axes),
        feature_axes=canonicalize_axes(x.ndim, feature_axes),
        epsilon=epsilon,
        dtype=dtypes.canonicalize_dtype(x, scale, bias, dtype=dtype),
    )


def l2_normalize(x: jax.Array, axis: Axes | None = None, eps: float = 1e-12) -> jax.Array:
    """Returns x divided by its Euclidean norm along an axis, or along all of them."""
    axes = tuple(axis) if isinstance(axis, Sequence) else axis
    return x * lax.rsqrt(jnp.sum(x * x, axis=axes, keepdims=True) + eps)
