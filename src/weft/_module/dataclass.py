"""Dataclasses that are objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

from weft._object.pytree import data, static

T = TypeVar("T", bound=type)


@overload
def dataclass(cls: T, /) -> T: ...
@overload
def dataclass(cls: None = None, /, **options: Any) -> Callable[[T], T]: ...
@dataclass_transform(field_specifiers=(dataclasses.field, data, static))
def dataclass(cls: Any = None, /, **options: Any) -> Any:
    """Makes a dataclass of a `Pytree` or `Module` subclass.

    Fields may be declared data or static with `nnx.data()`, `nnx.static()`, `nnx.Data[...]` and
    `nnx.Static[...]`. Options are those of `dataclasses.dataclass`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> @nnx.dataclass
      ... class Scale(nnx.Module):
      ...     factor: nnx.Data[float]
      ...     name: str = "scale"
      >>> dict(nnx.to_flat_state(nnx.state(Scale(2.0))))
      {('factor',): 2.0}
    """

    def decorate(cls: type) -> type:
        # Marks of fields were read when the class was made; a repr of its own is kept.
        return dataclasses.dataclass(cls, **{"repr": False, **options})

    return decorate if cls is None else decorate(cls)
