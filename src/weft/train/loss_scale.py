"""Loss scale: the factor that keeps gradients in float16 from being rounded to zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from weft._module import Pytree
from weft.train.opt_state import OptArray


class LossScale(Pytree):
    """A factor for the loss, which follows what the gradients can bear (dynamic loss scaling).

    float16 has no numbers below 6e-8, so small gradients vanish. The loss is multiplied by this
    factor before it is differentiated, and the gradients are divided by it afterwards, in float32.
    Where gradients overflow, the step is left out and the factor halved; after `interval` steps
    without overflow it is doubled (Micikevicius et al., 2018, "Mixed precision training"). bfloat16
    has the range of float32 and needs none.

    Attributes:
      value: the factor, a `float32` scalar in an `OptArray`.
      good_steps: how many steps there were since it changed, an `int32` scalar in an `OptArray`.

    Args:
      initial: the factor at the beginning.
      interval: after how many good steps it grows; None to keep it as it is, also on overflow.
      factor: by how much it grows and shrinks; it never gets below 1.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> from weft import train
      >>> scale = train.LossScale(initial=1024.0)
      >>> scale.adjust(False)
      >>> float(scale.value[...])
      512.0
    """

    def __init__(self, initial: float = 2.0**15, *, interval: int | None = 2000, factor: float = 2):
        if not initial >= 1:
            raise ValueError(f"initial must be at least 1, found {initial!r}: try initial=2.0**15")
        if interval is not None and interval < 1:
            raise ValueError(f"interval must be at least 1, found {interval!r}: try interval=2000")
        if not factor > 1:
            raise ValueError(f"factor must be greater than 1, found {factor!r}: try factor=2")
        self.value = OptArray(jnp.float32(initial))
        self.good_steps = OptArray(jnp.int32(0))
        self.interval = interval
        self.factor = float(factor)

    def scale(self, loss: jax.Array) -> jax.Array:
        """Returns a loss, in float32 or wider, multiplied by the factor."""
        return self._with_scale(jnp.multiply, loss)

    def unscale(self, grads: Any) -> Any:
        """Returns a tree of gradients divided by the factor, in float32 or wider."""
        return jax.tree.map(lambda grad: self._with_scale(jnp.divide, grad), grads)

    def _with_scale(self, operation: Any, x: jax.Array) -> jax.Array:
        x = _wide(x)  # which may be wider than the factor, or complex
        return operation(x, self.value.get_raw_value().astype(x.dtype))

    def adjust(self, is_finite: jax.Array | bool) -> None:
        """Takes note of a step.

        Args:
          is_finite: whether all its gradients were finite, a scalar.
        """
        if self.interval is None:
            return
        value, good = self.value.get_raw_value(), self.good_steps.get_raw_value() + 1
        grows = good >= self.interval
        grown = jnp.where(grows, value * self.factor, value)
        grown = jnp.where(jnp.isfinite(grown), grown, value)
        shrunk = jnp.maximum(value / self.factor, 1)
        self.value.set_raw_value(jnp.where(is_finite, grown, shrunk))
        self.good_steps.set_raw_value(jnp.where(jnp.logical_and(is_finite, ~grows), good, 0))


def _wide(x: jax.Array) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):
        return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
