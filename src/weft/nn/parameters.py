"""The step that every layer shares: draw a key, call an initializer, box the array as a Param."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from weft._rng import Rngs
from weft._variable import VariableMetadata
from weft._variable_types import Param
from weft.nn.dtypes import Dtype
from weft.nn.initializers import Initializer

NO_METADATA: Mapping[str, Any] = MappingProxyType({})


def new_param(
    layer: object,
    rngs: Rngs,
    init: Initializer,
    shape: Sequence[int],
    dtype: Dtype,
    metadata: Mapping[str, Any] = NO_METADATA,
    *,
    drawn_as: Sequence[int] | None = None,
    param_type: type[Param] = Param,
) -> Param:
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
    if not isinstance(rngs, Rngs):
        name = type(layer).__name__
        raise TypeError(
            f"{name} expected `rngs` to be an nnx.Rngs, found {rngs!r} of type "
            f"{type(rngs).__name__}: use `nnx.{name}(..., rngs=nnx.Rngs(0))`"
        )
    value = init(rngs.params(), tuple(shape if drawn_as is None else drawn_as), dtype)
    if drawn_as is not None and isinstance(value, VariableMetadata):
        value = dataclasses.replace(value, raw_value=value.raw_value.reshape(shape))
    elif drawn_as is not None:
        value = value.reshape(shape)
    return param_type(value, **metadata)
