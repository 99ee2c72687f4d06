"""Sentinels, bases and type names that several parts of Weft share."""

from __future__ import annotations

import collections
import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, TypeVar

import jax
import numpy as np


class Missing(enum.Enum):
    """Type of `MISSING`, which stands for an argument that was not given."""

    MISSING = enum.auto()

    def __repr__(self) -> str:
        return "<missing>"


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
        from weft._core.repr import represent

        return represent(self)


class Root(Representable):
    """Common base of objects and Variables: what a transform takes apart by itself.

    Attributes:
      _root_plans: what functions remember of calls with this as their first object.
    """

    __slots__ = ()
    _root_plans: dict[Any, Any]

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        from weft._core.drawing import render

        return render(self, path, subtree_renderer)


class Held(enum.Enum):
    """Type of `HELD`, which is in the place of an array that a lease holds for a Variable."""

    HELD = enum.auto()


NO_PLANS: dict[Any, Any] = {}
"""The plans of an object that has none yet; never changed."""

MISSING: Final[Literal[Missing.MISSING]] = Missing.MISSING
HELD: Final[Literal[Held.HELD]] = Held.HELD

A = TypeVar("A")
M = TypeVar("M")
F = TypeVar("F", bound=Callable[..., Any])

ARRAY_TYPES = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)
"""Types of the raw leaves of an object: arrays, concrete, traced or abstract."""

SCALAR_TYPES = (bool, int, float, complex, np.generic)
"""Types of numbers: static, unless they are marked as data."""

exhaust: Callable[[Iterable[Any]], None] = collections.deque[Any](maxlen=0).extend
"""Runs an iterator to its end in one call from C, which no signal interrupts."""
