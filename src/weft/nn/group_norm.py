"""Normalisation of groups of channels, and of each channel, of one example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from weft._rng import Rngs
from weft.nn import initializers
from weft.nn.dtypes import Dtype, PromoteDtype, as_array, canonicalize_dtype, promote_dtype
from weft.nn.initializers import Initializer
from weft.nn.moments import (
    Axes,
    Normalization,
    apply_moments,
    check_features,
    check_num_features,
    compute_moments,
    finite_where_masked,
    normalize,
    normalized_axes,
    per_feature,
)
from weft.nn.parameters import NO_METADATA


class GroupNorm(Normalization):
    """Normalises groups of channels (Wu & He, 2018, https://arxiv.org/abs/1803.08494).

    The last axis is cut into groups of neighbouring channels; statistics are taken over a group
    and over the axes between the first and the last. So they depend on no other example.

    Args:
      num_features: how many channels there are.
      num_groups: into how many groups they are cut.
      group_size: how many channels make a group, in place of `num_groups=None`.
      epsilon: added to the variance.
      dtype: the computation dtype; None for what input and parameters promote to.
      param_dtype: the dtype of scale and bias.
      use_bias: whether to add a bias.
      use_scale: whether to multiply with a scale.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      reduction_axes: axes to take the statistics over, of which the last axis, whose channels
        are grouped, must be one; None for all but the first.
      axis_name: a mapped axis to average over as well.
      axis_index_groups: groups of indices of that axis to average over.
      use_fast_variance: whether to take the variance as E[|x|²] - |E[x]|², in one pass.
      promote_dtype: how input and parameters are cast.
      rngs: draws scale, then bias, from the stream `params`.
      bias_metadata: metadata of the bias.
      scale_metadata: metadata of the scale.

    Attributes:
      scale: `Param` of shape (num_features,), or None.
      bias: `Param` of shape (num_features,), or None.
      num_groups: how many groups there are.
      group_size: how many channels make one.

    Raises:
      ValueError: if not exactly one of `num_groups` and `group_size` is given, or it does not
        divide the channels.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[1.0, 2.0, 30.0, 50.0]])).round(2).tolist()
      [[-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int | None = 32,
        group_size: int | None = None,
        *,
        epsilon: float = 1e-6,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = initializers.zeros,
        scale_init: Initializer = initializers.ones,
        reduction_axes: Axes | None = None,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: PromoteDtype = promote_dtype,
        rngs: Rngs,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
        scale_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        check_num_features(self, num_features)
        super().__init__(num_features, epsilon, dtype, param_dtype, promote_dtype)
        self.feature_axis = -1
        self.num_groups, self.group_size = _groups(num_features, num_groups, group_size)
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.reduction_axes = reduction_axes
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.scale = per_feature(self, use_scale, rngs, scale_init, scale_metadata)
        self.bias = per_feature(self, use_bias, rngs, bias_init, bias_metadata)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Returns the input normalised, in its shape.

        Args:
          x: the input, of shape (batch, ..., num_features).
          mask: which elements count for the statistics; it broadcasts to the input.

        Raises:
          ValueError: if the input has another number of channels or no batch axis, or if
            `reduction_axes` leaves out the last axis.
        """
        x = as_array(x)
        if x.ndim < 2:
            raise ValueError(
                f"GroupNorm expects an input of shape (batch, ..., {self.num_features}), found "
                f"shape {x.shape}: add the batch axis, `layer(x[None])[0]`"
            )
        channels = x.ndim - 1
        check_features(self, x, (channels,), self.num_groups * self.group_size)
        reduced = (
            tuple(range(1, x.ndim))
            if self.reduction_axes is None
            else normalized_axes(self.reduction_axes, x.ndim)
        )
        if channels not in reduced:
            raise ValueError(
                f"GroupNorm takes its statistics over the channels of a group, but reduction_axes="
                f"{self.reduction_axes} leaves out the last axis of an input of shape {x.shape}: "
                f"write `reduction_axes={(*reduced, -1)}`"
            )
        # The channels become two axes, groups and channels of a group; only the latter is reduced.
        grouped_axes = (*(axis for axis in reduced if axis != channels), x.ndim)
        grouped_shape = (*x.shape[:-1], self.num_groups, self.group_size)
        scale = None if self.scale is None else self.scale.get_value()
        bias = None if self.bias is None else self.bias.get_value()
        x, scale, bias = self.promote_dtype((x, scale, bias), dtype=self.dtype)
        x = finite_where_masked(x, mask)
        mean, var = compute_moments(
            x.reshape(grouped_shape),
            grouped_axes,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            use_fast_variance=self.use_fast_variance,
            mask=None if mask is None else jnp.broadcast_to(mask, x.shape).reshape(grouped_shape),
        )

        def per_channel(statistic: jax.Array) -> jax.Array:
            spread = jnp.repeat(jnp.expand_dims(statistic, grouped_axes[:-1]), self.group_size, -1)
            return spread.reshape([1 if i in grouped_axes else n for i, n in enumerate(x.shape)])

        return apply_moments(
            x,
            per_channel(mean),
            per_channel(var),
            scale,
            bias,
            reduction_axes=grouped_axes,
            feature_axes=(channels,),
            epsilon=self.epsilon,
            dtype=canonicalize_dtype(x, scale, bias, dtype=self.dtype),
        )


class InstanceNorm(Normalization):
    """Normalises each channel of each example (Ulyanov et al., 2016, https://arxiv.org/abs/1607.08022).

    Statistics are taken over all axes but the first, which is the batch, and the feature axes.

    Args:
      num_features: how many features there are, the product over all feature axes.
      epsilon: added to the variance.
      dtype: the computation dtype; None for what input and parameters promote to.
      param_dtype: the dtype of scale and bias.
      use_bias: whether to add a bias.
      use_scale: whether to multiply with a scale.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      feature_axes: axes of the features.
      axis_name: a mapped axis to average over as well.
      axis_index_groups: groups of indices of that axis to average over.
      use_fast_variance: whether to take the variance as E[|x|²] - |E[x]|², in one pass.
      promote_dtype: how input and parameters are cast.
      rngs: draws scale, then bias, from the stream `params`.
      bias_metadata: metadata of the bias.
      scale_metadata: metadata of the scale.

    Attributes:
      scale: `Param` of shape (num_features,), or None.
      bias: `Param` of shape (num_features,), or None.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.InstanceNorm(2, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[[1.0, 10.0], [2.0, 30.0]]])).round(2).tolist()
      [[[-1.0, -1.0], [1.0, 1.0]]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        epsilon: float = 1e-6,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = initializers.zeros,
        scale_init: Initializer = initializers.ones,
        feature_axes: Axes = -1,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: PromoteDtype = promote_dtype,
        rngs: Rngs,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
        scale_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        super().__init__(num_features, epsilon, dtype, param_dtype, promote_dtype)
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.feature_axes = feature_axes
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.scale = per_feature(self, use_scale, rngs, scale_init, scale_metadata)
        self.bias = per_feature(self, use_bias, rngs, bias_init, bias_metadata)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Returns the input normalised, in its shape.

        Args:
          x: the input, of shape (batch, ..., features) if the features are on the last axis.
          mask: which elements count for the statistics; it broadcasts to the input.

        Raises:
          ValueError: if the input has another number of features, or if a feature axis is the
            first.
        """
        x = as_array(x)
        feature_axes = normalized_axes(self.feature_axes, x.ndim)
        if 0 in feature_axes:
            raise ValueError(
                f"InstanceNorm takes axis 0 for the batch, but feature_axes={self.feature_axes} "
                f"names it for an input of shape {x.shape}: add a batch axis, "
                "`layer(x[None])[0]`, or move the features, `feature_axes=-1`"
            )
        reduction_axes = [axis for axis in range(1, x.ndim) if axis not in feature_axes]
        return normalize(self, x, reduction_axes, feature_axes, mask)


def _groups(num_features: int, num_groups: int | None, group_size: int | None) -> tuple[int, int]:
    if (num_groups is None) == (group_size is None):
        raise ValueError(
            f"GroupNorm expects either num_groups or group_size, found num_groups={num_groups} and "
            f"group_size={group_size}: for groups of a given size write "
            f"`nnx.GroupNorm({num_features}, num_groups=None, group_size={group_size or 16}, ...)`"
        )
    divisor = num_groups if group_size is None else group_size
    if divisor is None or divisor <= 0 or num_features % divisor:
        name = "num_groups" if group_size is None else "group_size"
        raise ValueError(
            f"GroupNorm cannot cut num_features={num_features} into groups with {name}={divisor}: "
            f"choose one that divides {num_features}"
        )
    other = num_features // divisor
    return (divisor, other) if group_size is None else (other, divisor)
