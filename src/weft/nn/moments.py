"""Mean and variance over some axes, and what is done with them: the core of all normalisation.

*Reduction axes* are those that the statistics are taken over, *feature axes* those along which
there is a scale and a bias. Statistics are computed in float32 or wider, whatever the input. An
element *counts* for them unless a mask leaves it out; where none does, the mean is 0 and the
variance 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from weft._module import Module
from weft._rng import Rngs
from weft._variable.types import Param
from weft.nn.dtypes import Dtype, PromoteDtype, as_array, canonicalize_dtype
from weft.nn.initializers import Initializer
from weft.nn.parameters import check_sizes, optional_param
from weft.nn.torch_weights import TorchWeights

Axes = int | Sequence[int]


def normalized_axes(axes: Axes, ndim: int) -> tuple[int, ...]:
    """Returns axes as a sorted tuple of numbers from 0.

    Raises:
      ValueError: if one is out of bounds, or given twice.
    """
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    outside = [axis for axis in axes if not -ndim <= axis < ndim]
    found = sorted(axis % ndim for axis in axes) if not outside else []
    if outside or len(set(found)) != len(found):
        raise ValueError(
            f"expected distinct axes of an input with {ndim} dimensions, from {-ndim} to "
            f"{ndim - 1}, found {axes}"
        )
    return tuple(found)


def compute_moments(
    x: jax.Array,
    axes: tuple[int, ...],
    *,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    use_mean: bool = True,
    use_fast_variance: bool = True,
    mask: jax.Array | None = None,
) -> tuple[Any, jax.Array]:
    """Returns mean and variance, float32 or wider, without the reduced axes.

    Args:
      x: the input.
      axes: the reduction axes.
      axis_name: a mapped axis to average over as well.
      axis_index_groups: groups of indices of that axis to average over.
      use_mean: if False, the mean is taken to be zero, and None is returned for it.
      use_fast_variance: whether to take the variance as E[|x|²] - |E[x]|² in one pass over the
        input, which loses digits where the mean is large against the deviation.
      mask: which elements count, nonzero for yes; it broadcasts to the input.
    """
    with jax.numpy_dtype_promotion("standard"):
        x = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
    counts = anything_counts(x.shape, axes, mask)
    summed = None  # what is summed: where nothing counts, anything, since 0 / 0 has no gradient
    if mask is not None and counts is not None:
        mask = jnp.asarray(mask).astype(bool)
        summed = mask | ~jnp.expand_dims(counts, axes)

    def mean_of(value: jax.Array) -> jax.Array:
        if math.prod(value.shape[axis] for axis in axes) == 0:
            return jnp.zeros_like(value, shape=_without(value.shape, axes))
        mean = jnp.mean(value, axes, where=summed)
        return mean if counts is None else jnp.where(counts, mean, 0)

    def square_of(value: jax.Array) -> jax.Array:
        # Selected before it is squared: the gradient of the square of an infinity is NaN.
        return abs_square(value if mask is None else jnp.where(mask, value, 0))

    def psum(value: Any) -> Any:
        return lax.psum(value, axis_name, axis_index_groups=axis_index_groups)

    def across(value: jax.Array) -> jax.Array:
        if axis_name is None:
            return value
        if counts is None:
            return lax.pmean(value, axis_name, axis_index_groups=axis_index_groups)
        # The mean over the devices on which something counts.
        return psum(value) / jnp.maximum(psum(counts.astype(x.real.dtype)), 1)

    if not use_mean:
        mean, var = None, across(mean_of(square_of(x)))
    elif not use_fast_variance:
        mean = across(mean_of(x))
        var = across(mean_of(square_of(x - jnp.expand_dims(mean, axes))))
    else:
        square = square_of(x)  # before the mean: gradients are summed in the reverse order of use
        mean, mean_of_square = mean_of(x), mean_of(square)
        if axis_name is not None:  # one collective for both
            if mean.dtype == mean_of_square.dtype:
                mean, mean_of_square = across(jnp.stack([mean, mean_of_square]))
            else:
                mean, mean_of_square = across(mean), across(mean_of_square)
        # Rounding can take the difference below zero.
        var = jnp.maximum(0.0, mean_of_square - abs_square(mean))
    if counts is None:
        return mean, var
    anywhere = counts if axis_name is None else psum(counts.astype(jnp.int32)) > 0
    return mean, jnp.where(anywhere, var, 1)


def anything_counts(
    shape: tuple[int, ...], axes: tuple[int, ...], mask: jax.Array | None
) -> jax.Array | None:
    """Returns for which statistics there are elements that count; None for all.

    Args:
      shape: the input's shape.
      axes: the reduction axes.
      mask: which elements count.

    Returns:
      Booleans of the input's shape without the reduction axes.
    """
    if math.prod(shape[axis] for axis in axes) == 0:
        return jnp.zeros(_without(shape, axes), bool)
    if mask is None:
        return None
    return jnp.broadcast_to(jnp.asarray(mask).astype(bool), shape).any(axes)


def _without(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def finite_where_masked(x: Any, mask: Any) -> jax.Array:
    """Returns an input with 0 for the elements that a mask leaves out and that are not finite.

    Multiplied by the zero gradients that they get, they would make those of others NaN.
    """
    if mask is None:
        return x
    return jnp.where(jnp.asarray(mask).astype(bool) | jnp.isfinite(x), x, jnp.zeros((), x.dtype))


def abs_square(x: jax.Array) -> jax.Array:
    """Returns |x|², without a square root for complex numbers."""
    if jnp.iscomplexobj(x):
        return lax.square(lax.real(x)) + lax.square(lax.imag(x))
    return lax.square(x)


def apply_moments(
    x: jax.Array,
    mean: jax.Array | None,
    var: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    *,
    reduction_axes: tuple[int, ...],
    feature_axes: tuple[int, ...],
    epsilon: float,
    dtype: Any,
) -> jax.Array:
    """Returns `(x - mean) / sqrt(var + epsilon) * scale + bias`, in `dtype`.

    Args:
      x: the input.
      mean: the mean without the reduction axes, or with all axes; None for zero.
      var: the variance, likewise.
      scale: the scale, one number per feature, or None.
      bias: the bias, likewise.
      reduction_axes: the axes the statistics were taken over.
      feature_axes: the axes that scale and bias belong to.
      epsilon: added to the variance.
      dtype: the dtype of the result.
    """
    feature_shape = tuple(n if i in feature_axes else 1 for i, n in enumerate(x.shape))

    def with_all_axes(statistic: jax.Array) -> jax.Array:
        if statistic.ndim == x.ndim:
            return statistic
        shape = tuple(1 if i in reduction_axes else n for i, n in enumerate(x.shape))
        return statistic.reshape(shape)

    # The statistics are float32 whatever the input is: a mix that is meant.
    with jax.numpy_dtype_promotion("standard"):
        factor = lax.rsqrt(with_all_axes(var) + epsilon)
        if scale is not None:
            factor = factor * scale.reshape(feature_shape)
        y = x if mean is None else x - with_all_axes(mean)
        y = y * factor
        if bias is not None:
            y = y + bias.reshape(feature_shape)
    return jnp.asarray(y, dtype)


def check_num_features(layer: Any, num_features: Any) -> None:
    """Raises unless the number of features is one integer, which may be 0."""
    check_sizes(layer, least=0, num_features=num_features)
    if isinstance(num_features, (tuple, list)):
        kind = type(layer).__name__
        raise TypeError(
            f"{kind} expects num_features to be one int, the product over all feature axes, found "
            f"{num_features!r}: write `nnx.{kind}({math.prod(num_features)}, ...)`, with "
            "`feature_axes` and `reduction_axes` if there are several"
        )


class Normalization(Module):
    """What the layers that normalise each example share."""

    torch_weights: ClassVar[TorchWeights] = {"weight": "scale", "bias": "bias"}

    def __init__(
        self,
        num_features: int,
        epsilon: float,
        dtype: Dtype | None,
        param_dtype: Dtype,
        promote_dtype: PromoteDtype,
    ):
        self.num_features = num_features
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.promote_dtype = promote_dtype


def per_feature(
    layer: Any, used: bool, rngs: Rngs, init: Initializer, metadata: Mapping[str, Any]
) -> Param[jax.Array] | None:
    """Returns a parameter with one number per feature for a layer, or None if it uses none."""
    check_num_features(layer, layer.num_features)
    shape = (layer.num_features,)
    return optional_param(layer, used, rngs, init, shape, layer.param_dtype, metadata)


def check_features(
    layer: Any, x: jax.Array, feature_axes: tuple[int, ...], num_features: int
) -> None:
    """Raises if the input does not have as many features as the layer.

    Raises:
      ValueError: see above.
    """
    shape = tuple(x.shape[axis] for axis in feature_axes)
    if math.prod(shape) == num_features:
        return
    kind = type(layer).__name__
    where = f"axis {feature_axes[0]}" if len(feature_axes) == 1 else f"axes {feature_axes}"
    raise ValueError(
        f"{kind} was made for num_features={num_features}, but its input of shape {x.shape} has "
        f"{' × '.join(map(str, shape))} on {where}: make it "
        f"`nnx.{kind}({math.prod(shape)}, ...)`, or name other feature axes"
    )


def normalize(
    layer: Any,
    x: jax.Array,
    reduction_axes: Axes,
    feature_axes: Axes,
    mask: jax.Array | None,
) -> jax.Array:
    """Returns the input normalised as a layer with scale and bias says.

    Args:
      layer: the layer, which holds the options, scale and bias.
      x: the input.
      reduction_axes: the axes to take the statistics over.
      feature_axes: the axes that scale and bias go along.
      mask: which elements count for the statistics.

    Raises:
      ValueError: if the axes are wrong, or the input has another number of features.
    """
    x = as_array(x)
    reduction_axes = normalized_axes(reduction_axes, x.ndim)
    feature_axes = normalized_axes(feature_axes, x.ndim)
    scale = None if layer.scale is None else layer.scale.get_value()
    bias = None if layer.bias is None else layer.bias.get_value()
    if scale is not None or bias is not None:
        check_features(layer, x, feature_axes, layer.num_features)
    x, scale, bias = layer.promote_dtype((x, scale, bias), dtype=layer.dtype)
    x = finite_where_masked(x, mask)
    mean, var = compute_moments(
        x,
        reduction_axes,
        axis_name=layer.axis_name,
        axis_index_groups=layer.axis_index_groups,
        use_fast_variance=layer.use_fast_variance,
        mask=mask,
    )
    return apply_moments(
        x,
        mean,
        var,
        scale,
        bias,
        reduction_axes=reduction_axes,
        feature_axes=feature_axes,
        epsilon=layer.epsilon,
        dtype=canonicalize_dtype(x, scale, bias, dtype=layer.dtype),
    )
