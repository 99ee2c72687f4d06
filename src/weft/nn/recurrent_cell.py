"""Recurrent cells: what an RNN does in one step.

A cell is called with a *carry*, what it remembers, and the inputs of one step, and returns the new
carry and an output. The carry of an LSTM is a pair, that of the other cells one array, each of
shape (batch..., hidden_features). A cell with a computation dtype makes its first carry and returns
carry and output in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from weft._module import Module
from weft._rng import Rngs, RngStream
from weft.nn import initializers
from weft.nn.activations import sigmoid, tanh
from weft.nn.dtypes import Dtype, PromoteDtype, promote_dtype
from weft.nn.initializers import Initializer
from weft.nn.layer_rngs import find_stream, keep_stream
from weft.nn.linear import Linear
from weft.nn.parameters import NO_METADATA, check_sizes

Activation = Callable[..., Any]
Kernel = tuple[int, Initializer, Mapping[str, Any]]
"""What a kernel is made of: the size of what it is applied to, its initializer, its metadata."""
Bias = tuple[Initializer, Mapping[str, Any]]
"""What a bias is made of: its initializer and its metadata."""


def modified_orthogonal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    """Returns an orthogonal matrix made in float32, then cast: for dtypes LAPACK does not know.

    Args:
      key: a PRNG key.
      shape: the shape.
      dtype: the dtype of the result.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> init = nnx.nn.recurrent.modified_orthogonal
      >>> init(jax.random.key(0), (4, 4), jax.numpy.bfloat16).dtype
      dtype(bfloat16)
    """
    return initializers.orthogonal()(key, shape, jnp.float32).astype(dtype)


class RNNCellBase(Module):
    """The interface of a cell; subclass it to make one that `RNN` can run.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> class Counter(nnx.RNNCellBase):
      ...     num_feature_axes = 1
      ...     def initialize_carry(self, input_shape, rngs=None, carry_init=None):
      ...         return jnp.zeros(input_shape)
      ...     def __call__(self, carry, inputs):
      ...         return carry + inputs, carry + inputs
      >>> nnx.RNN(Counter(), rngs=False)(jnp.ones((3, 1)))[:, 0].tolist()
      [1.0, 2.0, 3.0]
    """

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> Any:
        """Returns the carry before the first step.

        Args:
          input_shape: the shape of the inputs of one step, (batch..., features...).
          rngs: what to draw from.
          carry_init: initializer of the carry.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define initialize_carry")

    def __call__(self, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        """Returns the new carry and the output of one step.

        Args:
          carry: the carry.
          inputs: the inputs, of shape (batch..., features...).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    @property
    def num_feature_axes(self) -> int:
        """How many of the last axes of the inputs are features."""
        raise NotImplementedError(f"{type(self).__name__} does not define num_feature_axes")

    @property
    def draws_carry(self) -> bool:
        """Whether `initialize_carry` may draw, so that an `RNN` has to keep a stream for it."""
        return True


class HiddenStateCell(RNNCellBase):
    """What the cells of this library share: options, projections, and how a carry begins."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        dtype: Dtype | None,
        param_dtype: Dtype,
        activation_fn: Activation,
        carry_init: Initializer | None,
        promote_dtype: PromoteDtype,
        keep_rngs: bool,
        rngs: Rngs,
    ):
        check_sizes(self, in_features=in_features, hidden_features=hidden_features)
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.activation_fn = activation_fn
        self.promote_dtype = promote_dtype
        self.carry_init = carry_init
        self.rngs = keep_stream(rngs if keep_rngs else None, "carry", type(self).__name__)

    @property
    def num_feature_axes(self) -> int:
        """One: the last axis of the inputs."""
        return 1

    @property
    def draws_carry(self) -> bool:
        """Whether the carry is not simply zeros."""
        return self.carry_init is not None

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> Any:
        """Returns the first hidden state, by default zeros.

        Args:
          input_shape: the shape of the inputs of one step, (batch..., in_features).
          rngs: what to draw from, the stream `carry`; zeros need none.
          carry_init: its initializer, in place of the cell's.

        Raises:
          ValueError: if there is an initializer, but nothing to draw from.
        """
        return self.new_carries(1, input_shape, rngs, carry_init)[0]

    def rounded(self, result: jax.Array) -> jax.Array:
        """Returns a result, into which the carry went as it was, in the computation dtype."""
        return result if self.dtype is None else result.astype(self.dtype)

    def project(
        self,
        out_features: int,
        kernel: Kernel,
        bias: Bias,
        rngs: Rngs,
        *,
        use_bias: bool = True,
    ) -> Linear:
        """Returns a projection in the cell's dtypes."""
        in_features, kernel_init, kernel_metadata = kernel
        bias_init, bias_metadata = bias
        return Linear(
            in_features,
            out_features,
            use_bias=use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            promote_dtype=self.promote_dtype,
            rngs=rngs,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
        )

    def new_carries(
        self,
        number: int,
        input_shape: tuple[int, ...],
        rngs: Rngs | RngStream | None,
        carry_init: Initializer | None,
    ) -> tuple[jax.Array, ...]:
        shape = (*input_shape[:-1], self.hidden_features)
        dtype = self.param_dtype if self.dtype is None else self.dtype
        carry_init = self.carry_init if carry_init is None else carry_init
        source = self.rngs if rngs is None else rngs
        if source is None:
            if carry_init is not None:
                kind = type(self).__name__
                raise ValueError(
                    f"{kind} cannot draw its first carry: it was made with keep_rngs=False, and "
                    "`rngs` was not given. Write `cell.initialize_carry(shape, rngs)`, "
                    "`rnn(x, rngs=rngs)` or `nnx.RNN(cell, rngs=rngs)`"
                )
            return tuple(jnp.zeros(shape, dtype) for _ in range(number))
        # Zeros draw too where there is a stream, so that it goes on alike for every initializer.
        stream = find_stream(source, "carry", type(self).__name__)
        init = initializers.zeros if carry_init is None else carry_init
        return tuple(init(stream(), shape, dtype) for _ in range(number))


class GatedCell(HiddenStateCell):
    """What cells with gates share: their options."""

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
        self.make_gates(
            (in_features, kernel_init, kernel_metadata),
            (hidden_features, recurrent_kernel_init, recurrent_kernel_metadata),
            (bias_init, bias_metadata),
            rngs,
        )

    def make_gates(self, of_input: Kernel, of_hidden: Kernel, bias: Bias, rngs: Rngs) -> None:
        """Makes the projections of inputs and hidden state.

        Args:
          of_input: size of the inputs, initializer and metadata of their kernels.
          of_hidden: the same of the hidden state.
          bias: initializer and metadata of the biases.
          rngs: draws the parameters.
        """
        raise NotImplementedError


def carry_stream(
    rngs: Rngs | RngStream | bool | None, layer: str, *, needed: bool
) -> RngStream | None:
    """Returns the stream that a layer keeps for its first carry.

    Args:
      rngs: what to fork it from; True for one of seed 0, False or None for none.
      layer: the layer's class name, for errors.
      needed: whether the carry is drawn at all; if not, True makes none.

    Raises:
      TypeError: if `rngs` is of another type.
      ValueError: if there is no stream `carry` or default one.
    """
    if rngs is True:
        return RngStream(jax.random.key(0), tag="carry") if needed else None
    return keep_stream(None if rngs is False else rngs, "carry", layer)
