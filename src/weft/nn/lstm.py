"""Long short-term memory: recurrent cells that keep a cell state beside the hidden state."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from weft._rng import Rngs, RngStream
from weft.nn.initializers import Initializer
from weft.nn.recurrent_cell import Bias, GatedCell, Kernel
from weft.nn.torch_weights import TorchWeights, added


class _LSTMBase(GatedCell):
    """The carry of an LSTM, (cell state, hidden state), and what its gates do with it."""

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the first carry, (cell state, hidden state), by default zeros.

        Args:
          input_shape: the shape of the inputs of one step, (batch..., in_features).
          rngs: what to draw from, the stream `carry`; zeros need none.
          carry_init: initializer of both, in place of the cell's.

        Raises:
          ValueError: if there is an initializer, but nothing to draw from.
        """
        cell_state, hidden = self.new_carries(2, input_shape, rngs, carry_init)
        return cell_state, hidden

    def _step(
        self, cell_state: jax.Array, i: jax.Array, f: jax.Array, g: jax.Array, o: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        with jax.numpy_dtype_promotion("standard"):  # the carry may be wider than the gates
            i, f, g, o = self.gate_fn(i), self.gate_fn(f), self.activation_fn(g), self.gate_fn(o)
            cell_state = f * cell_state + i * g
            hidden = self.rounded(o * self.activation_fn(cell_state))
        return (self.rounded(cell_state), hidden), hidden


class LSTMCell(_LSTMBase):
    """A long short-term memory cell (Hochreiter & Schmidhuber, 1997).

    With inputs x, hidden state h and cell state c, and a kernel for each input and gate:
    i, f, o = σ(W x + R h + b), g = tanh(W x + R h + b), c' = f c + i g, h' = o tanh(c').
    `OptimizedLSTMCell` computes the same with two larger products.

    Args:
      in_features: the size of the inputs.
      hidden_features: the size of cell state, hidden state and output.
      gate_fn: the activation of the gates.
      activation_fn: the activation of cell state and its candidate.
      kernel_init: initializer of the inputs' kernels.
      recurrent_kernel_init: initializer of the hidden state's kernels.
      bias_init: initializer of the biases.
      dtype: the computation dtype; None for what inputs and parameters promote to.
      param_dtype: the dtype of the parameters, and of the first carry if `dtype` is None.
      carry_init: initializer of the first carry; None for zeros.
      promote_dtype: how inputs and parameters are cast.
      keep_rngs: whether to keep a stream for the first carry.
      rngs: draws the parameters from `params`, and the kept stream from `carry`.
      kernel_metadata: metadata of the inputs' kernels.
      recurrent_kernel_metadata: metadata of the hidden state's kernels.
      bias_metadata: metadata of the biases.

    Attributes:
      ii, if_, ig, io: `Linear` without bias from the inputs to each gate.
      hi, hf, hg, ho: `Linear` from the hidden state to each gate.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> cell = nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0))
      >>> carry, output = cell(cell.initialize_carry((2, 3)), jnp.ones((2, 3)))
      >>> output.shape
      (2, 4)
    """

    torch_weights: ClassVar[TorchWeights] = {
        "weight_ih": ("ii.kernel", "if_.kernel", "ig.kernel", "io.kernel"),
        "weight_hh": ("hi.kernel", "hf.kernel", "hg.kernel", "ho.kernel"),
        ("bias_ih", "bias_hh"): added("hi.bias", "hf.bias", "hg.bias", "ho.bias"),
    }

    def make_gates(self, of_input: Kernel, of_hidden: Kernel, bias: Bias, rngs: Rngs) -> None:
        size = self.hidden_features
        self.ii = self.project(size, of_input, bias, rngs, use_bias=False)
        self.if_ = self.project(size, of_input, bias, rngs, use_bias=False)
        self.ig = self.project(size, of_input, bias, rngs, use_bias=False)
        self.io = self.project(size, of_input, bias, rngs, use_bias=False)
        self.hi = self.project(size, of_hidden, bias, rngs)
        self.hf = self.project(size, of_hidden, bias, rngs)
        self.hg = self.project(size, of_hidden, bias, rngs)
        self.ho = self.project(size, of_hidden, bias, rngs)

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Returns the new carry and the output, which is the new hidden state.

        Args:
          carry: cell state and hidden state, of shape (batch..., hidden_features).
          inputs: of shape (batch..., in_features).
        """
        cell_state, hidden = carry
        return self._step(
            cell_state,
            self.ii(inputs) + self.hi(hidden),
            self.if_(inputs) + self.hf(hidden),
            self.ig(inputs) + self.hg(hidden),
            self.io(inputs) + self.ho(hidden),
        )


class OptimizedLSTMCell(_LSTMBase):
    """An `LSTMCell` that computes all gates with two products.

    The columns of its kernels are those of the gates i, f, g, o side by side.

    Args:
      in_features: the size of the inputs.
      hidden_features: the size of cell state, hidden state and output.
      gate_fn: the activation of the gates.
      activation_fn: the activation of cell state and its candidate.
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
      dense_i: `Linear` without bias from the inputs to 4 * hidden_features.
      dense_h: `Linear` from the hidden state to 4 * hidden_features.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> cell = nnx.OptimizedLSTMCell(3, 4, rngs=nnx.Rngs(0))
      >>> carry, output = cell(cell.initialize_carry((2, 3)), jnp.ones((2, 3)))
      >>> output.shape
      (2, 4)
    """

    torch_weights: ClassVar[TorchWeights] = {
        "weight_ih": "dense_i.kernel",
        "weight_hh": "dense_h.kernel",
        ("bias_ih", "bias_hh"): added("dense_h.bias"),
    }

    def make_gates(self, of_input: Kernel, of_hidden: Kernel, bias: Bias, rngs: Rngs) -> None:
        size = 4 * self.hidden_features
        self.dense_i = self.project(size, of_input, bias, rngs, use_bias=False)
        self.dense_h = self.project(size, of_hidden, bias, rngs)

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Returns the new carry and the output, which is the new hidden state.

        Args:
          carry: cell state and hidden state, of shape (batch..., hidden_features).
          inputs: of shape (batch..., in_features).
        """
        cell_state, hidden = carry
        i, f, g, o = jnp.split(self.dense_i(inputs) + self.dense_h(hidden), 4, axis=-1)
        return self._step(cell_state, i, f, g, o)
