"""The recurrent cell without gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from weft._rng import Rngs
from weft.nn import initializers
from weft.nn.activations import tanh
from weft.nn.dtypes import Dtype, PromoteDtype, promote_dtype
from weft.nn.initializers import Initializer
from weft.nn.parameters import NO_METADATA
from weft.nn.recurrent_cell import (
    Activation,
    HiddenStateCell,
    modified_orthogonal,
)
from weft.nn.torch_weights import TorchWeights, added


class SimpleCell(HiddenStateCell):
    """A cell without gates (Elman, 1990): h' = tanh(W x + b + R h).

    Args:
      in_features: the size of the inputs.
      hidden_features: the size of hidden state and output.
      dtype: the computation dtype.
      param_dtype: the dtype of the parameters, and of the first carry if `dtype` is None.
      carry_init: initializer of the first carry; None for zeros.
      residual: whether to add the hidden state before the activation.
      activation_fn: the activation.
      kernel_init: initializer of the inputs' kernel.
      recurrent_kernel_init: initializer of the hidden state's kernel.
      bias_init: initializer of the bias.
      promote_dtype: how inputs and parameters are cast.
      keep_rngs: whether to keep a stream for the first carry.
      rngs: draws the parameters from `params`, and the kept stream from `carry`.
      kernel_metadata: metadata of the inputs' kernel.
      recurrent_kernel_metadata: metadata of the hidden state's kernel.
      bias_metadata: metadata of the bias.

    Attributes:
      dense_i: `Linear` from the inputs to `hidden_features`.
      dense_h: `Linear` without bias from the hidden state to `hidden_features`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> cell = nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0))
      >>> carry, output = cell(cell.initialize_carry((2, 3)), jnp.ones((2, 3)))
      >>> output.shape
      (2, 4)
    """

    torch_weights: ClassVar[TorchWeights] = {
        "weight_ih": "dense_i.kernel",
        "weight_hh": "dense_h.kernel",
        ("bias_ih", "bias_hh"): added("dense_i.bias"),
    }

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        dtype: Dtype | None = jnp.float32,
        param_dtype: Dtype = jnp.float32,
        carry_init: Initializer | None = None,
        residual: bool = False,
        activation_fn: Activation = tanh,
        kernel_init: Initializer = initializers.default_kernel_init,
        recurrent_kernel_init: Initializer = modified_orthogonal,
        bias_init: Initializer = initializers.zeros,
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
        self.residual = residual
        of_hidden = (hidden_features, recurrent_kernel_init, recurrent_kernel_metadata)
        of_input = (in_features, kernel_init, kernel_metadata)
        bias = (bias_init, bias_metadata)
        self.dense_h = self.project(hidden_features, of_hidden, bias, rngs, use_bias=False)
        self.dense_i = self.project(hidden_features, of_input, bias, rngs)

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the new hidden state, twice: as carry and as output.

        Args:
          carry: the hidden state, of shape (batch..., hidden_features).
          inputs: of shape (batch..., in_features).
        """
        with jax.numpy_dtype_promotion("standard"):  # the carry may be wider than the result
            hidden = self.dense_i(inputs) + self.dense_h(carry)
            if self.residual:
                hidden = hidden + carry
            hidden = self.rounded(self.activation_fn(hidden))
        return hidden, hidden
