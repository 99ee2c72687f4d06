"""What every layer does to make parameters: check sizes, draw a key, initialize, box as a Param."""

from __future__ import annotations

import dataclasses
import math
import operator
import reprlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from weft._core.trace import is_outermost
from weft._rng import Rngs
from weft._variable.types import Param
from weft._variable.variable import VariableMetadata
from weft.nn.dtypes import Dtype
from weft.nn.initializers import Initializer, ones, zeros

NO_METADATA: Mapping[str, Any] = MappingProxyType({})
_MOST_ON_HOST = 2**20


def sizes(features: Any) -> tuple[Any, ...]:
    """Returns sizes or axes as a tuple, one number as a tuple of one."""
    return (features,) if np.ndim(features) == 0 else tuple(features)


def check_sizes(owner: object, *, least: int = 1, **given: Any) -> None:
    """Raises unless arguments are integers, or several of them, and not too small.

    Args:
      owner: the layer, or the name, for error messages.
      least: the smallest size.
      **given: the arguments by name.

    Raises:
      TypeError: for what is no integer.
      ValueError: for one that is too small.
    """
    for name, value in given.items():
        one, numbers = np.ndim(value) == 0, sizes(value)
        integers = [_integer(size) for size in numbers]
        if all(number is not None and number >= least for number in integers):
            continue
        kind = owner if isinstance(owner, str) else type(owner).__name__
        expected = f"{'an int' if one else 'ints'} of {least} or more"
        if None not in integers:
            remedy = tuple(max(number or 0, least) for number in integers)
            raise ValueError(
                f"{kind} expects {name} to be {expected}, found {value!r}: leave out a layer that "
                f"has nothing to compute, or write `{name}={remedy[0] if one else remedy}`"
            )
        if isinstance(value, Tracer):
            raise TypeError(
                f"{kind} expects {name} to be {expected}, found a traced array: sizes must be "
                f"known before. Make it static, `nnx.jit(f, static_argnames='{name}')`"
                ", or bind it, `functools.partial(f, size)`"
            )
        odd = next(size for size, number in zip(numbers, integers, strict=True) if number is None)
        whole = tuple(int(x) if isinstance(x, (int, float)) else least for x in numbers)
        remedy = "; ints are divided by `//`" if isinstance(odd, float) else ""
        raise TypeError(
            f"{kind} expects {name} to be {expected}, found {reprlib.repr(value)}, where "
            f"{reprlib.repr(odd)} is of type {type(odd).__name__}: write for example "
            f"`{name}={whole[0] if one else whole}`{remedy}"
        )


def _integer(size: Any) -> int | None:
    try:
        return None if isinstance(size, (bool, np.bool_)) else operator.index(size)
    except TypeError:
        return None


def new_param(
    layer: object,
    rngs: Rngs,
    init: Initializer,
    shape: Sequence[int],
    dtype: Dtype,
    metadata: Mapping[str, Any] = NO_METADATA,
    *,
    drawn_as: Sequence[int] | None = None,
    param_type: type[Param[Any]] = Param,
) -> Param[jax.Array]:
    """Makes a parameter from the next key of the stream `params`.

    Args:
      layer: the layer it is for, for error messages.
      rngs: the random streams; one key is drawn, whether `init` uses it or not.
      init: initializer; its result may carry metadata (see `with_metadata`).
      shape: the parameter's shape.
      dtype: its dtype.
      metadata: keyword metadata of the Variable.
      drawn_as: the shape to call `init` with, where its notion of fan-in needs another one; the
        result is reshaped.
      param_type: the Variable type.

    Raises:
      TypeError: if `rngs` is not an `Rngs`.
    """
    name = type(layer).__name__
    if not isinstance(rngs, Rngs):
        is_key = isinstance(rngs, jax.Array)
        found = "an array" if is_key else f"{rngs!r} of type {type(rngs).__name__}"
        raise TypeError(
            f"{name} expected `rngs` to be an nnx.Rngs, found {found}: "
            f"use `nnx.{name}(..., rngs=nnx.Rngs({'key' if is_key else 0}))`"
        )
    if not callable(init):
        raise TypeError(
            f"{name} expects an initializer, a function of key, shape and dtype, found {init!r}: "
            f"write one of `nnx.initializers`, such as `nnx.initializers.he_normal()`"
        )
    drawn_shape = tuple(shape if drawn_as is None else drawn_as)
    value = _initialize(init, rngs.params(), drawn_shape, dtype)
    _check_made(value, init, name)
    if drawn_as is not None and isinstance(value, VariableMetadata):
        value = dataclasses.replace(value, raw_value=value.raw_value.reshape(shape))
    elif drawn_as is not None:
        value = value.reshape(shape)
    return param_type(value, **metadata)


def optional_param(layer: object, used: bool, *args: Any, **kwargs: Any) -> Param[jax.Array] | None:
    """As `new_param`; None for a layer that does not use the parameter, and nothing is drawn."""
    return new_param(layer, *args, **kwargs) if used else None


def _check_made(value: Any, init: Any, name: str) -> None:
    """Raises TypeError if an initializer made another one instead of an array."""
    if callable(value) and not hasattr(value, "shape") and not isinstance(value, VariableMetadata):
        made = getattr(init, "__name__", "lecun_normal")
        raise TypeError(
            f"{name} expects an initializer, a function of key, shape and dtype, found {made!r}, "
            f"which makes one: call it, `nnx.initializers.{made}()`"
        )


def _initialize(init: Initializer, key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> Any:
    """Returns `init(key, shape, dtype)`; small zeros and ones without compiling a program."""
    for filling, number in ((zeros, 0), (ones, 1)):
        if init is filling and _comes_from_host(shape, dtype):
            return jax.device_put(np.full(shape, number, dtype))
    return init(key, shape, dtype)


def _comes_from_host(shape: tuple[int, ...], dtype: Dtype | None) -> bool:
    """Returns whether an array is small, of a type that stays as it is, and not for a mesh."""
    return (
        dtype is not None
        and jax.dtypes.canonicalize_dtype(dtype) == dtype
        and math.prod(shape) <= _MOST_ON_HOST
        and is_outermost()
        and jax.sharding.get_abstract_mesh().empty
    )
