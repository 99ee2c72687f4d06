"""Activation functions: JAX's own, and those with parameters as layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from weft._module import Module
from weft._variable import Param
from weft.nn import dtypes
from weft.nn.parameters import NO_METADATA

celu = jax.nn.celu
elu = jax.nn.elu
gelu = jax.nn.gelu
glu = jax.nn.glu
hard_sigmoid = jax.nn.hard_sigmoid
hard_silu = jax.nn.hard_silu
hard_swish = jax.nn.hard_swish
hard_tanh = jax.nn.hard_tanh
identity = jax.nn.identity
leaky_relu = jax.nn.leaky_relu
log_sigmoid = jax.nn.log_sigmoid
log_softmax = jax.nn.log_softmax
logsumexp = jax.nn.logsumexp
one_hot = jax.nn.one_hot
relu = jax.nn.relu
relu6 = jax.nn.relu6
selu = jax.nn.selu
sigmoid = jax.nn.sigmoid
silu = jax.nn.silu
soft_sign = jax.nn.soft_sign
softmax = jax.nn.softmax
softplus = jax.nn.softplus
standardize = jax.nn.standardize
swish = jax.nn.swish
tanh = jnp.tanh


class PReLU(Module):
    """Leaky ReLU whose slope for negative inputs is learnt (He et al. 2015, arXiv:1502.01852).

    Attributes:
      negative_slope: Param of shape ().

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.PReLU(0.25)(jnp.array([-4.0, 3.0]))
      Array([-1.,  3.], dtype=float32)
    """

    def __init__(
        self,
        negative_slope_init: float = 0.01,
        *,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        negative_slope_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        """Makes the slope.

        Args:
          negative_slope_init: its initial value.
          dtype: computation dtype; by default that of the inputs, or float32 for integers.
          param_dtype: dtype of the slope.
          promote_dtype: what casts inputs and slope to `dtype`.
          negative_slope_metadata: keyword metadata of the slope.
        """
        value = jnp.asarray(negative_slope_init, param_dtype)
        self.negative_slope = Param(value, **negative_slope_metadata)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.promote_dtype = promote_dtype

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the activation to each element.

        Args:
          inputs: an array of any shape.

        Returns:
          An array of the same shape.
        """
        dtype = self.dtype
        if dtype is None:
            dtype = dtypes.canonicalize_dtype(inputs)
        inputs, slope = self.promote_dtype((inputs, self.negative_slope[...]), dtype=dtype)
        return jnp.where(inputs >= 0, inputs, slope * inputs)
