"""Batch normalisation, which remembers the statistics of the batches it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from weft._module import Module
from weft._rng import Rngs
from weft._variable.types import BatchStat
from weft.nn import initializers
from weft.nn.dtypes import Dtype, PromoteDtype, as_array, canonicalize_dtype, promote_dtype
from weft.nn.initializers import Initializer
from weft.nn.layer_options import choose_option
from weft.nn.moments import (
    anything_counts,
    apply_moments,
    check_features,
    check_num_features,
    compute_moments,
    finite_where_masked,
    normalized_axes,
    per_feature,
)
from weft.nn.parameters import NO_METADATA
from weft.nn.torch_weights import TorchWeights


class BatchNorm(Module):
    """Normalises each feature over the batch (Ioffe & Szegedy, 2015, https://arxiv.org/abs/1502.03167).

    In training it uses the statistics of the batch and moves the running ones towards them,
    `running = momentum * running + (1 - momentum) * batch`; in evaluation it uses the running ones.
    `model.eval()` and `model.train()` switch. Statistics of a batch that are not finite, or of no
    element, do not move the running ones.

    Args:
      num_features: how many features there are on `axis`.
      use_running_average: whether to use the running statistics and leave them as they are; None
        to demand it at the call.
      axis: the axis of the features.
      momentum: how much of the running statistics a training step keeps.
      epsilon: added to the variance.
      dtype: the computation dtype; None for what input and parameters promote to.
      param_dtype: the dtype of scale and bias. The statistics are float32, or as wide as that if it
        is wider, and do not widen the result.
      use_bias: whether to add a bias.
      use_scale: whether to multiply with a scale.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      axis_name: a mapped axis, as of `nnx.pmap(..., axis_name="batch")`, to average over as well.
      axis_index_groups: groups of indices of that axis to average over.
      use_fast_variance: whether to take the variance as E[|x|²] - |E[x]|², in one pass.
      promote_dtype: how input, statistics and parameters are cast.
      rngs: draws scale, then bias, from the stream `params`.
      bias_metadata: metadata of the bias.
      scale_metadata: metadata of the scale.

    Attributes:
      mean: running mean, a `BatchStat` of shape (num_features,), at first 0.
      var: running variance, a `BatchStat` of shape (num_features,), at first 1.
      scale: `Param` of shape (num_features,), or None.
      bias: `Param` of shape (num_features,), or None.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.BatchNorm(1, momentum=0.5, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[2.0], [4.0]])).round(2).tolist()
      [[-1.0], [1.0]]
      >>> float(layer.mean[0])
      1.5
      >>> layer.eval()
      >>> layer(jnp.array([[1.5]])).tolist()
      [[0.0]]
    """

    torch_weights: ClassVar[TorchWeights] = {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
        "num_batches_tracked": None,
    }

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool | None = False,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = initializers.zeros,
        scale_init: Initializer = initializers.ones,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: PromoteDtype = promote_dtype,
        rngs: Rngs,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
        scale_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        self.num_features = num_features
        self.use_running_average = use_running_average
        self.axis = axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.promote_dtype = promote_dtype
        mean_dtype, var_dtype = _statistics_dtypes(param_dtype, dtype)
        check_num_features(self, num_features)
        self.mean = BatchStat(jnp.zeros((num_features,), mean_dtype))
        self.var = BatchStat(jnp.ones((num_features,), var_dtype))
        self.scale = per_feature(self, use_scale, rngs, scale_init, scale_metadata)
        self.bias = per_feature(self, use_bias, rngs, bias_init, bias_metadata)

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the input normalised, in its shape.

        Args:
          x: the input, with `num_features` on `axis`.
          use_running_average: overrides the layer's.
          mask: which elements count for the statistics of the batch, nonzero for yes; it broadcasts
            to the input. A feature of which nothing counts is normalised with the running
            statistics and does not move them.

        Raises:
          ValueError: if the input has another number of features, or if `use_running_average` is
            None here and on the layer.
        """
        use_running_average = choose_option(self, "use_running_average", use_running_average)
        x = as_array(x)
        feature_axes = normalized_axes(self.axis, x.ndim)
        check_features(self, x, feature_axes, self.num_features)
        reduction_axes = tuple(axis for axis in range(x.ndim) if axis not in feature_axes)
        scale = None if self.scale is None else self.scale.get_value()
        bias = None if self.bias is None else self.bias.get_value()
        # The statistics do not take part: they are float32 or wider, whatever the rest is.
        with jax.numpy_dtype_promotion("standard"):
            x, scale, bias = self.promote_dtype((x, scale, bias), dtype=self.dtype)
            dtype = canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        x = finite_where_masked(x, mask)
        mean, var = self.mean.get_value(), self.var.get_value()
        if not use_running_average:
            mean, var = _train(self, x, reduction_axes, mask)
        shape = tuple(n if i in feature_axes else 1 for i, n in enumerate(x.shape))
        return apply_moments(
            x,
            mean.reshape(shape),
            var.reshape(shape),
            scale,
            bias,
            reduction_axes=reduction_axes,
            feature_axes=feature_axes,
            epsilon=self.epsilon,
            dtype=dtype,
        )

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Sets what `nnx.view` asks for.

        Args:
          use_running_average: whether to use the running statistics.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


def _statistics_dtypes(param_dtype: Dtype, dtype: Dtype | None) -> tuple[Any, Any]:
    """Returns the dtypes of running mean and variance: float32 or wider, a variance is real."""
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(param_dtype, jnp.float32)
        real = jnp.finfo(wide).dtype
        if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
            wide = jnp.promote_types(wide, jnp.complex64)
    return wide, real


def _train(
    layer: BatchNorm, x: jax.Array, reduction_axes: tuple[int, ...], mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns the statistics to normalise a batch with, and moves the running ones.

    A feature of which nothing counts is normalised with the running statistics. These stay as they
    are where those of the batch are not finite: one bad batch would make them NaN for ever.
    """
    moments = compute_moments(
        x,
        reduction_axes,
        axis_name=layer.axis_name,
        axis_index_groups=layer.axis_index_groups,
        use_fast_variance=layer.use_fast_variance,
        mask=mask,
    )
    counts = anything_counts(x.shape, reduction_axes, mask)
    if counts is not None and layer.axis_name is not None:
        groups = layer.axis_index_groups
        counts = lax.psum(counts.astype(jnp.int32), layer.axis_name, axis_index_groups=groups) > 0
    fit = jnp.isfinite(moments[0]) & jnp.isfinite(moments[1])
    fit = fit if counts is None else fit & counts
    used = []
    for statistic, batch in zip((layer.mean, layer.var), moments, strict=True):
        running = statistic.get_value()
        with jax.numpy_dtype_promotion("standard"):
            dtype = running.dtype
            if jnp.iscomplexobj(batch):
                dtype = jnp.promote_types(dtype, jnp.complex64)
            running = running.astype(dtype)
            new = layer.momentum * running + (1 - layer.momentum) * batch.astype(dtype)
            statistic.set_value(lax.stop_gradient(jnp.where(fit, new, running)))
            used.append(batch if counts is None else jnp.where(counts, batch, running))
    return used[0], used[1]
