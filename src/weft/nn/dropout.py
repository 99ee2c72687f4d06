"""Dropout: parts of the input set to zero at random while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from weft._module import Module
from weft._rng import Rngs, RngStream
from weft._variable.variable import Variable
from weft.nn.dtypes import as_array
from weft.nn.layer_options import choose_option
from weft.nn.layer_rngs import draw_key, keep_stream


def known_rate(rate: Any) -> float | None:
    """Returns a rate as a number; None if it is traced, or differs from element to element."""
    value = rate.get_value() if isinstance(rate, Variable) else rate
    if isinstance(value, jax.core.Tracer) or jnp.size(value) != 1:
        return None
    return value if isinstance(value, (int, float)) else np.asarray(value).item()


def keep_some(key: jax.Array, rate: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Draws which elements stay.

    Args:
      key: the key.
      rate: the probability of zero, below 1 where it is known.
      shape: the shape to draw.
      dtype: the dtype of what the elements are divided by.

    Returns:
      Booleans, and what to divide the elements that stay by.
    """
    known = known_rate(rate)
    if known is not None:
        return jax.random.bernoulli(key, 1.0 - known, shape), 1.0 - known
    rate = jnp.asarray(rate.get_value() if isinstance(rate, Variable) else rate, jnp.float32)
    keep_rate = 1.0 - rate
    divisor = jnp.where(keep_rate > 0, keep_rate, 1.0).astype(dtype)  # nothing stays, nor is NaN
    return jax.random.bernoulli(key, keep_rate, shape), divisor


class Dropout(Module):
    """Sets each element to zero with probability `rate`, and divides the rest by `1 - rate`.

    The expected value of an element stays the same, so that inference needs no scaling
    (Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html).

    Under `nnx.vmap` or `nnx.scan` a stream that is broadcast gives every row or step the same
    mask; split it, `nnx.split_rngs(splits=N)`, for masks that differ.

    Args:
      rate: the probability of zero, from 0 to 1: a number, an array, or a Variable. It may be
        traced, as that of a schedule is under `nnx.jit`, and set anew, `layer.rate = rate`.
      broadcast_dims: axes along which one draw is shared.
      deterministic: whether to return the input as it is; None to demand it at the call.
      rng_collection: the stream to draw from.
      rngs: where the layer's own stream comes from; None to give `rngs` at each call.

    Raises:
      ValueError: if the rate is no probability, or `rngs` has no such stream.
      TypeError: if `rngs` is no `Rngs`, `RngStream` or None.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
      >>> y = layer(jnp.ones(100))
      >>> sorted(set(y.tolist()))
      [0.0, 2.0]
      >>> layer.eval()
      >>> float(layer(jnp.ones(100)).sum())
      100.0
    """

    def __init__(
        self,
        rate: float | jax.Array | Variable,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: Rngs | RngStream | None = None,
    ):
        known = known_rate(rate)
        if known is not None and not 0 <= known <= 1:
            raise ValueError(
                f"Dropout expects a rate from 0 to 1, the probability of zero, found {rate!r}"
            )
        self.rate = rate
        self.broadcast_dims = tuple(broadcast_dims)
        self.deterministic = deterministic
        self.rng_collection = rng_collection
        self.rngs = keep_stream(rngs, rng_collection, "Dropout")

    def __call__(
        self,
        inputs: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Rngs | RngStream | jax.Array | None = None,
    ) -> jax.Array:
        """Returns the input with elements dropped, in its shape and dtype.

        Args:
          inputs: an array of any shape.
          deterministic: overrides the layer's.
          rngs: what to draw from in place of the layer's stream; a key is used as it is.

        Raises:
          ValueError: if `deterministic` is None here and on the layer, or if there is nothing to
            draw from.
          TypeError: if `rngs` is of another type.
        """
        inputs = as_array(inputs)
        known = known_rate(self.rate)
        if choose_option(self, "deterministic", deterministic) or known == 0:
            return inputs
        if known == 1:
            return jnp.zeros_like(inputs)
        key = draw_key(
            rngs, self.rngs, self.rng_collection, "Dropout", f"nnx.Dropout({self.rate}, "
        )
        shape = list(inputs.shape)
        for axis in self.broadcast_dims:
            shape[axis] = 1
        keep, divisor = keep_some(key, self.rate, tuple(shape), inputs.dtype)
        keep = jnp.broadcast_to(keep, inputs.shape)
        sharding = jax.typeof(inputs).sharding
        if any(axis is not None for axis in sharding.spec):  # on a mesh with explicit axes
            keep = jax.reshard(keep, sharding)
        scaled = inputs / divisor
        return jnp.where(keep, scaled, jnp.zeros_like(scaled))

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets what `nnx.view` asks for.

        Args:
          deterministic: whether to return the input as it is.
        """
        if deterministic is not None:
            self.deterministic = deterministic
