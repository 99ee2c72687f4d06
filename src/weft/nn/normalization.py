"""Normalisation of each example over its features: layer and root-mean-square normalisation.

The other kinds are in files of their own, and can be had from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from weft._rng import Rngs
from weft.nn import initializers
from weft.nn.batch_norm import BatchNorm as BatchNorm
from weft.nn.dtypes import Dtype, PromoteDtype, as_array, canonicalize_dtype, promote_dtype
from weft.nn.group_norm import GroupNorm as GroupNorm
from weft.nn.group_norm import InstanceNorm as InstanceNorm
from weft.nn.initializers import Initializer
from weft.nn.moments import (
    Axes,
    Normalization,
    apply_moments,
    check_features,
    compute_moments,
    finite_where_masked,
    normalize,
    normalized_axes,
    per_feature,
)
from weft.nn.nnx_names import names_for
from weft.nn.parameters import NO_METADATA
from weft.nn.torch_weights import TorchWeights

__getattr__ = names_for(
    __name__,
    SpectralNorm="weft.nn.spectral_norm",
    WeightNorm="weft.nn.weight_norm",
    _abs_sq="weft.nn.moments:abs_square",
    _canonicalize_axes="weft.nn.nnx_helpers:canonicalize_axes",
    _compute_stats="weft.nn.nnx_helpers:compute_stats",
    _l2_normalize="weft.nn.nnx_helpers:l2_normalize",
    _normalize="weft.nn.nnx_helpers:normalize",
)


class LayerNorm(Normalization):
    """Normalises each example over its features (Ba et al., 2016, https://arxiv.org/abs/1607.06450).

    Statistics are taken over `reduction_axes`, in float32 or wider; scale and bias go along
    `feature_axes`.

    Args:
      num_features: how many features there are, the product over all feature axes.
      epsilon: added to the variance.
      dtype: the computation dtype; None for what input and parameters promote to.
      param_dtype: the dtype of scale and bias.
      use_bias: whether to add a bias.
      use_scale: whether to multiply with a scale.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      reduction_axes: axes to take the statistics over.
      feature_axes: axes that scale and bias go along.
      axis_name: a mapped axis, as of `nnx.vmap(..., axis_name="batch")`, to average over as well.
      axis_index_groups: groups of indices of that axis to average over.
      use_fast_variance: whether to take the variance as E[|x|²] - |E[x]|², in one pass.
      promote_dtype: how input and parameters are cast, see `nnx.nn.dtypes.promote_dtype`.
      rngs: draws scale, then bias, from the stream `params`.
      bias_metadata: metadata of the bias.
      scale_metadata: metadata of the scale.

    Attributes:
      scale: `Param` of shape (num_features,), or None.
      bias: `Param` of shape (num_features,), or None.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.LayerNorm(3, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[1.0, 2.0, 3.0]])).round(2).tolist()
      [[-1.22..., 0.0, 1.22...]]
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
        reduction_axes: Axes = -1,
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
        self.reduction_axes = reduction_axes
        self.feature_axes = feature_axes
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.scale = per_feature(self, use_scale, rngs, scale_init, scale_metadata)
        self.bias = per_feature(self, use_bias, rngs, bias_init, bias_metadata)

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Returns the input normalised, in its shape.

        Args:
          x: the input, with the feature axes.
          mask: which elements count for the statistics; it broadcasts to the input.

        Raises:
          ValueError: if the input has another number of features.
        """
        return normalize(self, x, self.reduction_axes, self.feature_axes, mask)


class RMSNorm(Normalization):
    """Divides by the root of the mean square (Zhang & Sennrich, 2019, https://arxiv.org/abs/1910.07467).

    As `LayerNorm`, without subtracting the mean and without a bias.

    Args:
      num_features: how many features there are, the product over all feature axes.
      epsilon: added to the mean square.
      dtype: the computation dtype; None for what input and scale promote to.
      param_dtype: the dtype of the scale.
      use_scale: whether to multiply with a scale.
      scale_init: initializer of the scale.
      reduction_axes: axes to take the mean square over.
      feature_axes: axes that the scale goes along.
      axis_name: a mapped axis to average over as well.
      axis_index_groups: groups of indices of that axis to average over.
      use_fast_variance: accepted as by `LayerNorm`; there is only one way without a mean.
      promote_dtype: how input and scale are cast.
      rngs: draws the scale from the stream `params`.
      scale_metadata: metadata of the scale.

    Attributes:
      scale: `Param` of shape (num_features,), or None.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.RMSNorm(2, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[3.0, 4.0]])).round(3).tolist()
      [[0.84..., 1.13...]]
    """

    torch_weights: ClassVar[TorchWeights] = {"weight": "scale"}

    def __init__(
        self,
        num_features: int,
        *,
        epsilon: float = 1e-6,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        use_scale: bool = True,
        scale_init: Initializer = initializers.ones,
        reduction_axes: Axes = -1,
        feature_axes: Axes = -1,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: PromoteDtype = promote_dtype,
        rngs: Rngs,
        scale_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        super().__init__(num_features, epsilon, dtype, param_dtype, promote_dtype)
        self.use_scale = use_scale
        self.reduction_axes = reduction_axes
        self.feature_axes = feature_axes
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.scale = per_feature(self, use_scale, rngs, scale_init, scale_metadata)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns the input normalised, in its shape.

        Args:
          x: the input, with the feature axes.
          mask: which elements count for the mean square; it broadcasts to the input.

        Raises:
          ValueError: if the input has another number of features.
        """
        x = as_array(x)
        feature_axes = normalized_axes(self.feature_axes, x.ndim)
        reduction_axes = normalized_axes(self.reduction_axes, x.ndim)
        scale = None if self.scale is None else self.scale.get_value()
        if scale is not None:
            check_features(self, x, feature_axes, self.num_features)
        x, scale = self.promote_dtype((x, scale), dtype=self.dtype)
        x = finite_where_masked(x, mask)
        _, mean_square = compute_moments(
            x,
            reduction_axes,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            use_mean=False,
            mask=mask,
        )
        return apply_moments(
            x,
            None,
            mean_square,
            scale,
            None,
            reduction_axes=reduction_axes,
            feature_axes=feature_axes,
            epsilon=self.epsilon,
            dtype=canonicalize_dtype(x, scale, dtype=self.dtype),
        )
