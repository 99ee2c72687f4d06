"""Pooling to a given size, whatever the size of the inputs; to one element: global pooling.

Along an axis of n elements that is pooled to m, window i holds the elements from floor(i * n / m)
up to, and without, ceil((i + 1) * n / m): neighbours overlap where m does not divide n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from weft._module import Module
from weft.nn.parameters import check_sizes, sizes
from weft.nn.pooling import spatial_sizes


def _mean(
    x: jax.Array, axes: tuple[int, ...], where: np.ndarray | None = None, keepdims: bool = False
) -> jax.Array:
    """Returns the mean; of no elements it is 0."""
    if any(x.shape[axis] == 0 for axis in axes):
        shape = [max(size, 1) if axis in axes else size for axis, size in enumerate(x.shape)]
        x = jnp.zeros(shape, x.dtype)
    return jnp.mean(x, axes, where=where, keepdims=keepdims)


class _AdaptivePool(Module):
    """What the layers of adaptive pooling share."""

    _reduce: Callable[..., jax.Array]

    def __init__(self, output_shape: int | Sequence[int | None]):
        one = np.ndim(output_shape) == 0  # type: ignore[arg-type]
        self.output_shape = output_shape if one else tuple(output_shape)  # type: ignore[arg-type]
        check_sizes(self, output_shape=[size for size in sizes(output_shape) if size is not None])

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Pools.

        Args:
          inputs: array of shape (*batch, *space, channels).

        Returns:
          An array of shape (*batch, *output_shape, channels).

        Raises:
          ValueError: if `inputs` has too few axes.
        """
        inputs = jnp.asarray(inputs)
        output_shape = spatial_sizes(self.output_shape, inputs.ndim)
        first = _first_spatial_axis(self, inputs, len(output_shape))
        for axis, windows in enumerate(output_shape, first):
            if windows is not None:
                inputs = self._pool_axis(inputs, axis, windows)
        return inputs

    def _pool_axis(self, inputs: jax.Array, axis: int, windows: int) -> jax.Array:
        size = inputs.shape[axis]
        starts = np.arange(windows) * size // windows
        ends = -(-np.arange(1, windows + 1) * size // windows)
        # A row of element numbers for each window; short windows repeat their last element.
        numbers = starts[:, None] + np.arange((ends - starts).max())
        inside = numbers < ends[:, None]
        numbers = np.minimum(numbers, ends[:, None] - 1)
        inside = inside.reshape(inside.shape + (1,) * (inputs.ndim - axis - 1))
        return type(self)._reduce(jnp.take(inputs, numbers, axis=axis), axis + 1, inside)


class AdaptiveAvgPool(_AdaptivePool):
    """The mean of windows that are chosen such that the outputs have a given size.

    Args:
      output_shape: number of windows along each spatial axis; None keeps the size of the axis,
        an int alone is for all axes between the first and the last.

    Raises:
      ValueError: if a number is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.AdaptiveAvgPool((7, 7))(jnp.ones((2, 10, 12, 3))).shape
      (2, 7, 7, 3)
    """

    @staticmethod
    def _reduce(windows: jax.Array, axis: int, inside: np.ndarray) -> jax.Array:
        return _mean(windows, (axis,), inside)


class AdaptiveMaxPool(_AdaptivePool):
    """The maximum of windows that are chosen such that the outputs have a given size.

    Args:
      output_shape: number of windows along each spatial axis; None keeps the size of the axis,
        an int alone is for all axes between the first and the last.

    Raises:
      ValueError: if a number is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.AdaptiveMaxPool((7, None))(jnp.ones((2, 10, 12, 3))).shape
      (2, 7, 12, 3)
    """

    @staticmethod
    def _reduce(windows: jax.Array, axis: int, inside: np.ndarray) -> jax.Array:
        return jnp.max(windows, axis)  # elements repeated to fill a window change no maximum


class _GlobalPool(Module):
    """What the layers of global pooling share."""

    _reduce: Callable[..., jax.Array]

    def __init__(self, num_axes: int | None = None, *, keepdims: bool = False):
        self.num_axes = num_axes
        self.keepdims = keepdims

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Pools.

        Args:
          inputs: array of shape (*batch, *space, channels).

        Returns:
          An array of shape (*batch, channels), with ones between them if `keepdims`.

        Raises:
          ValueError: if `inputs` has too few axes.
        """
        inputs = jnp.asarray(inputs)
        rank = inputs.ndim
        first = 1 if self.num_axes is None else _first_spatial_axis(self, inputs, self.num_axes)
        return type(self)._reduce(inputs, tuple(range(first, rank - 1)), keepdims=self.keepdims)


class GlobalAvgPool(_GlobalPool):
    """The mean over all spatial axes.

    Args:
      num_axes: number of spatial axes, which stand before the channels; None for all axes but
        the first, the batch, and the last.
      keepdims: whether the spatial axes stay, of size 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.GlobalAvgPool()(jnp.ones((2, 7, 7, 3))).shape
      (2, 3)
    """

    _reduce = staticmethod(_mean)


class GlobalMaxPool(_GlobalPool):
    """The maximum over all spatial axes.

    Args:
      num_axes: number of spatial axes, which stand before the channels; None for all axes but
        the first, the batch, and the last.
      keepdims: whether the spatial axes stay, of size 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.GlobalMaxPool(keepdims=True)(jnp.ones((2, 7, 7, 3))).shape
      (2, 1, 1, 3)
    """

    _reduce = staticmethod(jnp.max)


def _first_spatial_axis(layer: object, inputs: jax.Array, num_axes: int) -> int:
    """Returns where the spatial axes begin; raises if `inputs` has fewer and no channels."""
    first = inputs.ndim - num_axes - 1
    if first < 0:
        raise ValueError(
            f"{type(layer).__name__} expects inputs of shape (..., {'space, ' * num_axes}"
            f"channels), channels last, found shape {inputs.shape}: give inputs of one "
            "channel a last axis, `inputs[..., None]`"
        )
    return first
