"""Marks: the decision that an attribute is data or static, on its way into an object.

`self.x = nnx.data(value)` assigns a mark. `Pytree.__setattr__` takes the value out, and notes with
the object that attributes of this name are data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from weft._errors import StructureError
from weft._path import format_path


class Mark(NamedTuple):
    """A value on its way into an attribute, with the decision whether it is data."""

    value: Any
    is_data: bool


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
