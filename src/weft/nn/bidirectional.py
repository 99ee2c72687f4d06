"""Recurrent layers in both directions of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from weft._module import Module
from weft._rng import Rngs, RngStream
from weft.nn.layer_rngs import find_stream
from weft.nn.recurrent_cell import carry_stream
from weft.nn.torch_weights import TorchWeights, of_part


@runtime_checkable
class RNNBase(Protocol):
    """What `Bidirectional` asks of the layers it is made of: to be called as `RNN` is."""

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: Any = None,
        rngs: Rngs | RngStream | None = None,
        seq_lengths: jax.Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Runs over the sequence."""
        ...


def _concatenate(a: jax.Array, b: jax.Array) -> jax.Array:
    """Joins the features of both directions."""
    return jnp.concatenate([a, b], axis=-1)


class Bidirectional(Module):
    """Runs one layer forwards and one backwards in time, and merges their outputs.

    The outputs of both stand at the inputs they belong to, whatever the lengths (Schuster &
    Paliwal, 1997).

    Args:
      forward_rnn: the layer that runs forwards.
      backward_rnn: the layer that runs backwards.
      merge_fn: makes one output of two; by default it joins their features.
      time_major: whether the inputs are (time, batch..., features...).
      return_carry: whether to return the last carries too.
      rngs: as for `RNN`: what both draw their first carries from; False or None to leave it to
        them.

    Raises:
      TypeError: if `rngs` is of another type.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> layer = nnx.Bidirectional(
      ...     nnx.RNN(nnx.GRUCell(3, 4, rngs=rngs)), nnx.RNN(nnx.GRUCell(3, 4, rngs=rngs))
      ... )
      >>> layer(jnp.ones((2, 5, 3))).shape
      (2, 5, 8)
    """

    time_major: bool = False
    return_carry: bool = False

    def __init__(
        self,
        forward_rnn: RNNBase,
        backward_rnn: RNNBase,
        *,
        merge_fn: Callable[[jax.Array, jax.Array], jax.Array] = _concatenate,
        time_major: bool = False,
        return_carry: bool = False,
        rngs: Rngs | RngStream | bool | None = True,
    ):
        self.forward_rnn = forward_rnn
        self.backward_rnn = backward_rnn
        self.merge_fn = merge_fn
        self.time_major = time_major
        self.return_carry = return_carry
        draws = any(getattr(rnn, "draws_carry", True) for rnn in (forward_rnn, backward_rnn))
        self.rngs = carry_stream(rngs, "Bidirectional", needed=draws)

    @property
    def torch_weights(self) -> TorchWeights:
        """What `nnx.load_weights` takes: those of `torch.nn.LSTM(..., bidirectional=True)`."""
        forward = getattr(self.forward_rnn, "torch_weights", {})
        backward = getattr(self.backward_rnn, "torch_weights", {})
        return {
            **of_part("forward_rnn", forward),
            **of_part("backward_rnn", backward, "_reverse"),
        }

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: tuple[Any, Any] | None = None,
        rngs: Rngs | RngStream | None = None,
        seq_lengths: jax.Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Returns the merged outputs, or the carries of both directions and these.

        Args:
          inputs: of shape (batch..., time, features...), or time-major.
          initial_carry: the first carries of both; None to let the cells make them.
          rngs: what to draw these from.
          seq_lengths: the lengths of the sequences; None for the whole time axis.
          return_carry: overrides the layer's.
          time_major: overrides the layer's.
          reverse: there is no other direction to reverse to; None or False.
          keep_order: the order is kept in any case.

        Returns:
          The merged outputs, or ((forward carry, backward carry), merged outputs).

        Raises:
          ValueError: for `reverse=True`, and as `RNN`.
        """
        if reverse:
            raise ValueError(
                "Bidirectional runs in both directions, so that `reverse=True` has no meaning: "
                "swap the two layers, or flip the outputs, `jnp.flip(y, time_axis)`"
            )
        return_carry = self.return_carry if return_carry is None else return_carry
        time_major = self.time_major if time_major is None else time_major
        stream = self.rngs
        if rngs is not None:
            stream = find_stream(rngs, "carry", "Bidirectional")
        forward_carry, backward_carry = (None, None) if initial_carry is None else initial_carry
        options = {
            "rngs": stream,
            "seq_lengths": seq_lengths,
            "return_carry": True,
            "time_major": time_major,
        }
        forward_carry, forward = self.forward_rnn(
            inputs, initial_carry=forward_carry, reverse=False, **options
        )
        backward_carry, backward = self.backward_rnn(
            inputs, initial_carry=backward_carry, reverse=True, keep_order=True, **options
        )
        outputs = self.merge_fn(forward, backward)
        return ((forward_carry, backward_carry), outputs) if return_carry else outputs
