"""The dtype in which a layer computes.

A layer has a *parameter dtype* (`param_dtype`: how its arrays are stored) and a *computation
dtype* (`dtype`). Inputs and parameters are cast to the computation dtype before anything is
computed; where it is None, it is what JAX's promotion makes of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Dtype = jax.typing.DTypeLike
PromoteDtype = Callable[..., tuple[Any, ...]]
"""A function with the signature of `promote_dtype`."""


def as_array(x: Any) -> Any:
    """Returns a list or tuple of numbers as an array; what JAX takes as an array stays as it is."""
    return jnp.asarray(x) if isinstance(x, (list, tuple)) else x


def inexact_dtype(dtype: Dtype) -> Any:
    """Returns a dtype, or for integers and booleans the floats that `jax.numpy` makes of them.

    Example:
      >>> from weft.nn.dtypes import inexact_dtype
      >>> inexact_dtype("bfloat16"), inexact_dtype("int8")
      (dtype(bfloat16), dtype('float32'))
    """
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype
    return jnp.dtype(jnp.float64 if dtype.itemsize == 8 else jnp.float32)


def for_squares(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns arrays in which squares can be summed: float16, whose range is small, as float32."""
    return tuple(x.astype(jnp.float32) if x.dtype == jnp.float16 else x for x in arrays)


def scale_for_squares(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns powers of two that an array is multiplied with so that its squares are finite.

    They are 1, which changes no bit, unless some element is so large that squares overflow.

    Args:
      x: the array.
      axes: the axes that squares are summed over; they stay, with length 1.
    """
    exponent = jnp.finfo(x.dtype).maxexp
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axes, keepdims=True, initial=0)
    factor = jnp.where(largest > 2.0 ** (exponent * 3 // 8), 2.0 ** -(exponent * 3 // 4), 1.0)
    return factor.astype(largest.dtype)


def canonicalize_dtype(*args: Any, dtype: Dtype | None = None, inexact: bool = True) -> Dtype:
    """Returns the computation dtype of some arrays.

    Args:
      *args: arrays or scalars; None stands for an array that is not there.
      dtype: the answer, if it is given.
      inexact: whether the answer must be a floating point or complex dtype: integers and booleans
        then count as float32.

    Returns:
      `dtype`, or what JAX's promotion makes of `args`.

    Raises:
      ValueError: if `dtype` is an integer or boolean dtype while `inexact`, or if there is neither
        an array nor a `dtype`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.nn.dtypes.canonicalize_dtype(jnp.ones(2, jnp.bfloat16), None)
      dtype(bfloat16)
    """
    if dtype is None:
        arrays = [arg for arg in args if arg is not None]
        if not arrays:
            raise ValueError(
                "found no array to take a dtype from: pass at least one that is not None, or "
                "`dtype=`"
            )
        dtype = jnp.result_type(*arrays)
        if inexact and not jnp.issubdtype(dtype, jnp.inexact):
            with jax.numpy_dtype_promotion("standard"):  # `inexact` asks for exactly this
                dtype = jnp.promote_types(jnp.float32, dtype)
    if inexact and not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"expected a floating point or complex dtype, found {np.dtype(dtype).name}: pass "
            "`dtype=jnp.float32`, or `inexact=False` if integers are meant"
        )
    return dtype


def promote_dtype(
    args: tuple[Any, ...], /, *, dtype: Dtype | None = None, inexact: bool = True
) -> tuple[Any, ...]:
    """Casts arrays to one dtype.

    Args:
      args: the arrays or scalars; None stays None.
      dtype: the dtype to cast to; by default the one of `canonicalize_dtype`.
      inexact: whether it must be a floating point or complex dtype.

    Returns:
      The arrays, in the same order.

    Raises:
      ValueError: as `canonicalize_dtype`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> x, nothing = nnx.nn.dtypes.promote_dtype((jnp.arange(2), None))
      >>> x.dtype, nothing
      (dtype('float32'), None)
    """
    dtype = canonicalize_dtype(*args, dtype=dtype, inexact=inexact)
    return tuple(None if arg is None else jnp.asarray(arg, dtype) for arg in args)
