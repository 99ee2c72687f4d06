"""What an object shows of itself, under the name that code of the NNX API imports this from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from weft._core.repr import Attr as Attr
from weft._core.repr import Object as Object
from weft._core.repr import represent as get_repr


class Representable:
    """Base of classes whose repr is laid out as that of a model.

    Example:
      >>> import weft as nnx
      >>> class Point(nnx.reprlib.Representable):
      ...     def __nnx_repr__(self):
      ...         yield nnx.reprlib.Object("Point")
      ...         yield nnx.reprlib.Attr("x", [1, 2])
      >>> Point()
      Point(x=[1, 2])
    """

    __slots__ = ()

    def __nnx_repr__(self) -> Iterator[Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return get_repr(self)
