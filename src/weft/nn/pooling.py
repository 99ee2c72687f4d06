"""Pooling: each window of the spatial axes is reduced to one value, channel by channel.

*Spatial axes* are those between the batch axes and the channels, which come last. A window has as
many axes as `window_shape` has numbers; what stands before them in the inputs is batch. A single
number is for all axes between the first, the batch, and the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.tracebacks import boundary
from weft._module import Module
from weft.nn.dtypes import inexact_dtype
from weft.nn.padding import Padding, canonicalize_padding, per_axis
from weft.nn.parameters import check_sizes

A = TypeVar("A")
_PADDINGS = ("SAME", "SAME_LOWER", "VALID")


def spatial_sizes(sizes: int | Sequence[A], ndim: int) -> tuple[int | A, ...]:
    """Returns one number for each spatial axis; for a single one the batch is taken for one axis.

    Args:
      sizes: the numbers.
      ndim: how many axes the inputs have.
    """
    return (sizes,) * max(ndim - 2, 1) if np.ndim(sizes) == 0 else tuple(sizes)  # type: ignore[arg-type]


def pool(
    inputs: jax.Array,
    init: Any,
    reduce_fn: Callable[[Any, Any], Any],
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
) -> jax.Array:
    """Reduces windows with any function.

    Args:
      inputs: array of shape (*batch, *space, channels); the batch axes may be missing.
      init: the value that `reduce_fn` starts with, also the one padding consists of.
      reduce_fn: an associative function of two scalars, such as `jax.lax.add`.
      window_shape: extent of the window along each spatial axis; an int for all axes between the
        first and the last.
      strides: step of the window, one for all axes or one each; None means 1.
      padding: "SAME", "SAME_LOWER", "VALID", an int for all sides, or an int or (low, high) pair
        for each spatial axis.

    Returns:
      An array of shape (*batch, *windows, channels).

    Raises:
      ValueError: if an argument does not fit `window_shape`, or `inputs` has too few axes.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.pool(jnp.arange(4.0).reshape(1, 4, 1), 0.0, jax.lax.add, (2,), (2,), "VALID").ravel()
      Array([1., 5.], dtype=float32)
    """
    inputs = jnp.asarray(inputs)
    shape = inputs.shape
    check_sizes("pooling", window_shape=window_shape)
    window = spatial_sizes(window_shape, inputs.ndim)
    rank = len(window)
    steps = per_axis(strides, rank, owner=f"pooling with window_shape={window}", argument="strides")
    sides = canonicalize_padding(padding, rank)
    if isinstance(sides, str) and sides not in _PADDINGS:
        raise ValueError(
            f"pooling expects padding to be one of {_PADDINGS}, an int, or a (low, high) pair for "
            f"each spatial axis, found {padding!r}: pad the inputs with jnp.pad for other kinds"
        )
    if len(shape) <= rank:
        raise ValueError(
            f"pooling with window_shape={window} expects inputs of shape (..., "
            f"{'space, ' * rank}channels), channels last, found shape {shape}: give inputs of one "
            "channel a last axis, `inputs[..., None]`"
        )
    around = (1,) * (len(shape) - rank - 1)  # batch axes; reduce_window knows no others
    if not isinstance(sides, str):
        sides = [*((0, 0) for _ in around), *sides, (0, 0)]
    if not isinstance(init, jax.Array):
        # Of NumPy, because JAX must see the value, also under jit, to recognise add, max and min:
        # only these have gradients.
        init = np.asarray(init, inputs.dtype)
    return jax.lax.reduce_window(
        inputs, init, reduce_fn, (*around, *window, 1), (*around, *steps, 1), sides
    )


@boundary
def avg_pool(
    inputs: jax.Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """Takes the mean of each window.

    Args:
      inputs: array of shape (*batch, *space, channels).
      window_shape: extent of the window along each spatial axis; an int for all axes between the
        first and the last.
      strides: step of the window, one for all axes or one each; None means 1.
      padding: as for `pool`.
      count_include_pad: whether padding counts as elements of the window; if not, a window of
        padding alone has the mean 0.

    Returns:
      An array of shape (*batch, *windows, channels) and of the inputs' dtype, or of floats for
      integers. The sums are computed in float32 or wider.

    Raises:
      ValueError: as `pool`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.avg_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), strides=(2,)).ravel()
      Array([0.5, 2.5], dtype=float32)
    """
    inputs = jnp.asarray(inputs)
    window = spatial_sizes(window_shape, inputs.ndim)
    dtype = inexact_dtype(inputs.dtype)
    with jax.numpy_dtype_promotion("standard"):
        # Sums of many small numbers stand still in low precision, those of large ones overflow.
        wide = jnp.promote_types(dtype, jnp.float32)
    totals = pool(inputs.astype(wide), 0, jax.lax.add, window, strides, padding)
    if count_include_pad:
        return (totals / math.prod(window)).astype(dtype)
    ones = jnp.ones((*inputs.shape[-len(window) - 1 : -1], 1), jnp.finfo(wide).dtype)
    counts = pool(ones, 0, jax.lax.add, window, strides, padding)
    counts = counts.reshape((1,) * (totals.ndim - counts.ndim) + counts.shape)
    counts = jnp.maximum(counts, 1)  # a window of padding alone has the mean 0
    return (totals / counts.astype(wide)).astype(dtype)


@boundary
def max_pool(
    inputs: jax.Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Takes the maximum of each window.

    Args:
      inputs: array of shape (*batch, *space, channels).
      window_shape: extent of the window along each spatial axis; an int for all axes between the
        first and the last.
      strides: step of the window, one for all axes or one each; None means 1.
      padding: as for `pool`; no padding is ever the maximum.

    Returns:
      An array of shape (*batch, *windows, channels).

    Raises:
      ValueError: as `pool`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.max_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), strides=(2,)).ravel()
      Array([1., 3.], dtype=float32)
    """
    inputs = jnp.asarray(inputs)
    return pool(inputs, _extreme(inputs, -1), jax.lax.max, window_shape, strides, padding)


@boundary
def min_pool(
    inputs: jax.Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Takes the minimum of each window.

    Args:
      inputs: array of shape (*batch, *space, channels).
      window_shape: as for `max_pool`.
      strides: as for `max_pool`.
      padding: as for `pool`; no padding is ever the minimum.

    Returns:
      An array of shape (*batch, *windows, channels).

    Raises:
      ValueError: as `pool`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.min_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), strides=(2,)).ravel()
      Array([0., 2.], dtype=float32)
    """
    inputs = jnp.asarray(inputs)
    return pool(inputs, _extreme(inputs, 1), jax.lax.min, window_shape, strides, padding)


def _extreme(inputs: jax.Array, sign: int) -> Any:
    """Returns the largest (1) or smallest (-1) value of the inputs' dtype."""
    dtype = inputs.dtype
    if jnp.issubdtype(dtype, jnp.floating):
        return sign * math.inf
    if jnp.issubdtype(dtype, jnp.bool_):
        return sign > 0
    info = jnp.iinfo(dtype)
    return info.max if sign > 0 else info.min


class _WindowPool(Module):
    """What the pooling layers of a fixed window share."""

    def __init__(
        self,
        window_shape: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        padding: Padding = "VALID",
    ):
        self.window_shape = window_shape
        self.strides = strides
        self.padding = padding


class AvgPool(_WindowPool):
    """The mean of each window; the layer of `avg_pool`.

    Args:
      window_shape: extent of the window along each spatial axis; an int for all axes between
        the first and the last.
      strides: step of the window, one for all axes or one each; None means 1, so pass the
        window's shape for windows that do not overlap.
      padding: as for `pool`.
      count_include_pad: whether padding counts as elements of the window; if not, a window of
        padding alone has the mean 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.AvgPool((2, 2), strides=2)(jnp.ones((1, 8, 8, 3))).shape
      (1, 4, 4, 3)
    """

    def __init__(
        self,
        window_shape: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        padding: Padding = "VALID",
        count_include_pad: bool = True,
    ):
        super().__init__(window_shape, strides, padding)
        self.count_include_pad = count_include_pad

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Pools an array of shape (*batch, *space, channels); raises as `pool`."""
        return avg_pool(
            inputs, self.window_shape, self.strides, self.padding, self.count_include_pad
        )


class MaxPool(_WindowPool):
    """The maximum of each window; the layer of `max_pool`.

    Args:
      window_shape: extent of the window along each spatial axis; an int for all axes between
        the first and the last.
      strides: step of the window, one for all axes or one each; None means 1, so pass the
        window's shape for windows that do not overlap.
      padding: as for `pool`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.MaxPool((2, 2), strides=2)(jnp.ones((1, 8, 8, 3))).shape
      (1, 4, 4, 3)
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Pools an array of shape (*batch, *space, channels); raises as `pool`."""
        return max_pool(inputs, self.window_shape, self.strides, self.padding)


class MinPool(_WindowPool):
    """The minimum of each window; the layer of `min_pool`.

    Args:
      window_shape: as for `MaxPool`.
      strides: as for `MaxPool`.
      padding: as for `pool`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.MinPool((2, 2), strides=2)(jnp.ones((1, 8, 8, 3))).shape
      (1, 4, 4, 3)
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Pools an array of shape (*batch, *space, channels); raises as `pool`."""
        return min_pool(inputs, self.window_shape, self.strides, self.padding)
