"""Marks: the decision that an attribute is data or static, on its way into an object.

`self.x = nnx.data(value)` assigns a mark. `Pytree.__setattr__` takes the value out, and notes with
the object that attributes of this name are data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from weft._core.errors import StructureError
from weft._core.path import format_path


class Mark(NamedTuple):
    """A value on its way into an attribute, with the decision whether it is data."""

    value: Any
    is_data: bool


class Placed(NamedTuple):
    """Marks an attribute that JAX put something else into than data: a shape, an axis, nothing.

    It stays data, so that what is made of a treedef has that treedef, but that is no part of it.

    Attributes:
      is_packed: whether it was a container; its parts are in the form for JAX then.
      mark: the mark that it has besides.
    """

    is_packed: bool
    mark: bool | None


def without_placed(marks: dict[Any, Any]) -> dict[Any, bool]:
    """Returns the marks that are a user's decisions."""
    if any(type(mark) is Placed for mark in marks.values()):
        own = {name: m.mark if type(m) is Placed else m for name, m in marks.items()}
        return {name: mark for name, mark in own.items() if mark is not None}
    return marks


def refuse_marks(own: dict[str, Any], kind: str) -> None:
    """Raises if a mark was stored with the value that it marks.

    Args:
      own: the attributes of an object.
      kind: the name of its class.

    Raises:
      StructureError: naming the attribute.
    """
    for name, value in own.items():
        if type(value) is Mark:
            mark = "data" if value.is_data else "static"
            raise StructureError(
                f"{format_path((name,), kind)} holds what `nnx.{mark}(...)` returned, which Weft's "
                f"own `__setattr__` takes the value out of: end `{kind}.__setattr__` with "
                "`super().__setattr__(name, value)` in place of `object.__setattr__`"
            )
