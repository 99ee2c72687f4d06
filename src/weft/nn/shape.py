"""Layers that compute nothing: they keep their inputs, or only change the shape."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from weft._module import Module
from weft.nn.dtypes import as_array

A = TypeVar("A")


class Identity(Module):
    """Returns its input.

    Example:
      >>> import weft as nnx
      >>> nnx.Identity()("anything")
      'anything'
    """

    def __call__(self, inputs: A, *args: Any, **kwargs: Any) -> A:
        """Returns `inputs`; other arguments are ignored, so that it can stand for any layer."""
        return inputs


class Flatten(Module):
    """Merges neighbouring axes into one.

    Args:
      start_axis: the first axis to merge; 1 keeps the batch axis apart.
      end_axis: the last axis to merge.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.Flatten()(jnp.ones((2, 3, 4, 5))).shape
      (2, 60)
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1):
        self.start_axis = start_axis
        self.end_axis = end_axis

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Merges the axes.

        Args:
          inputs: an array that has both axes.

        Returns:
          An array of the same elements with `end_axis - start_axis` axes fewer.

        Raises:
          ValueError: if `inputs` lacks an axis, or the last one comes before the first.
        """
        inputs = as_array(inputs)
        shape = jnp.shape(inputs)
        rank = len(shape)
        start, end = (axis + rank * (axis < 0) for axis in (self.start_axis, self.end_axis))
        if not 0 <= start <= end < rank:
            raise ValueError(
                f"Flatten(start_axis={self.start_axis}, end_axis={self.end_axis}) cannot merge the "
                f"axes of an array of shape {shape}: choose axes that it has, in order, such as "
                "`nnx.Flatten(1, -1)` for inputs of shape (batch, ...)"
            )
        merged = math.prod(shape[start : end + 1])
        return jnp.reshape(inputs, (*shape[:start], merged, *shape[end + 1 :]))
