"""The gated recurrent unit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from weft._rng import Rngs
from weft.nn.recurrent_cell import Bias, GatedCell, Kernel
from weft.nn.torch_weights import Into, TorchWeights


class GRUCell(GatedCell):
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

    def make_gates(self, of_input: Kernel, of_hidden: Kernel, bias: Bias, rngs: Rngs) -> None:
        size = 3 * self.hidden_features
        self.dense_i = self.project(size, of_input, bias, rngs)
        self.dense_h = self.project(size, of_hidden, bias, rngs, use_bias=False)

    @property
    def torch_weights(self) -> TorchWeights:
        """What `nnx.load_weights` takes: the weights of a `torch.nn.GRUCell`."""
        kernels = {"weight_ih": "dense_i.kernel", "weight_hh": "dense_h.kernel"}
        if self.dense_h.bias is not None:
            return {**kernels, "bias_ih": "dense_i.bias", "bias_hh": "dense_h.bias"}
        biases = Into("dense_i.bias", load=_one_bias, save=lambda x: (x, np.zeros_like(x)))
        return {**kernels, ("bias_ih", "bias_hh"): biases}

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


def _one_bias(of_input: np.ndarray, of_hidden: np.ndarray) -> np.ndarray:
    """Returns the sum of two biases, if the gate r does not come between them."""
    if np.any(of_hidden[2 * len(of_hidden) // 3 :]):
        size = len(of_hidden) // 3
        raise ValueError(
            "bias_hh is not zero where the gate r is multiplied with it, for which a GRUCell has "
            "no bias: give it one before, "
            f"`cell.dense_h = nnx.Linear({size}, {3 * size}, rngs=rngs)`"
        )
    return of_input + of_hidden
