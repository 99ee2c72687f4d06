"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from weft._rng import Rngs
from weft.nn import initializers
from weft.nn.activations import sigmoid, tanh
from weft.nn.dtypes import Dtype, PromoteDtype, promote_dtype
from weft.nn.initializers import Initializer
from weft.nn.parameters import NO_METADATA
from weft.nn.recurrent_cell import (
    Activation,
    HiddenStateCell,
    modified_orthogonal,
)


class GRUCell(HiddenStateCell):
    """A gated recurrent unit (Cho et al., 2014, https://arxiv.org/abs/1406.1078).

    With inputs x and hidden state h: r, z = σ(W x + b + R h), n = tanh(W x + b + r (R h)),
    h' = (1 - z) n + z h. The columns of its kernels are those of r, z, n side by side.

    Args:
      in_features: the size of the inputs.
      hidden_features: the size of hidden state and output.
      gate_fn: the activation of the gates.
      activation_fn: the activation of the candidate n.
      kernel_init: initializer of the inputs' kernel.
      recurrent_kernel_init: initializer of the hidden state's kernel.
      bias_init: initializer of the bias.
      dtype: the computation dtype; None for what inputs and parameters promote to.
      param_dtype: the dtype of the parameters, and of the first carry if `dtype` is None.
      carry_init: initializer of the first carry; None for zeros.
      promote_dtype: how inputs and parameters are cast.
      keep_rngs: whether to keep a stream for the first carry.
      rngs: draws the parameters from `params`, and the kept stream from `carry`.
      kernel_metadata: metadata of the inputs' kernel.
      recurrent_kernel_metadata: metadata of the hidden state's kernel.
      bias_metadata: metadata of the bias.

    Attributes:
      dense_i: `Linear` from the inputs to 3 * hidden_features.
      dense_h: `Linear` without bias from the hidden state to 3 * hidden_features.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
      >>> carry, output = cell(cell.initialize_carry((2, 3)), jnp.ones((2, 3)))
      >>> output.shape
      (2, 4)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        gate_fn: Activation = sigmoid,
        activation_fn: Activation = tanh,
        kernel_init: Initializer = initializers.default_kernel_init,
        recurrent_kernel_init: Initializer = modified_orthogonal,
        bias_init: Initializer = initializers.zeros,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        carry_init: Initializer | None = None,
        promote_dtype: PromoteDtype = promote_dtype,
        keep_rngs: bool = False,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        recurrent_kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        super().__init__(
            in_features,
            hidden_features,
            dtype,
            param_dtype,
            activation_fn,
            carry_init,
            promote_dtype,
            keep_rngs,
            rngs,
        )
        self.gate_fn = gate_fn
        size = 3 * hidden_features
        self.dense_i = self.project(
            in_features, size, kernel_init, kernel_metadata, bias_init, bias_metadata, rngs
        )
        self.dense_h = self.project(
            hidden_features,
            size,
            recurrent_kernel_init,
            recurrent_kernel_metadata,
            None,
            bias_metadata,
            rngs,
        )

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the new hidden state, twice: as carry and as output.

        Args:
          carry: the hidden state, of shape (batch..., hidden_features).
          inputs: of shape (batch..., in_features).
        """
        input_r, input_z, input_n = jnp.split(self.dense_i(inputs), 3, axis=-1)
        hidden_r, hidden_z, hidden_n = jnp.split(self.dense_h(carry), 3, axis=-1)
        with jax.numpy_dtype_promotion("standard"):  # the carry may be wider than the gates
            r = self.gate_fn(input_r + hidden_r)
            z = self.gate_fn(input_z + hidden_z)
            n = self.activation_fn(input_n + r * hidden_n)
            hidden = self.rounded((1.0 - z) * n + z * carry)
        return hidden, hidden
