"""Writing one item of a Variable's value: `v[index] = item`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weft._variable.guard import name_of
from weft._variable.values import replace_item

if TYPE_CHECKING:
    from weft._variable.variable import Variable


def with_item(variable: Variable, index: Any, item: Any) -> Any:
    """Returns the value of a Variable with another item; a container is copied.

    Raises:
      IndexError, TypeError, ValueError: as of the value, with the Variable named.
    """
    old = variable.get_value()
    try:
        return replace_item(old, index, item)
    except (IndexError, TypeError, ValueError) as error:
        if type(error) not in (IndexError, TypeError, ValueError):  # JAX's say enough
            raise
        place = "..." if index is ... else repr(index)
        shape = getattr(item, "shape", None)
        found = type(item).__name__ if shape is None else f"value of shape {tuple(shape)}"
        remedy = ". A value of another shape takes the place of the whole one: `v.set_value(x)`"
        raise type(error)(
            f"cannot write a {found} to v[{place}], where v is a {name_of(variable)}: {error}"
            + (remedy if isinstance(error, ValueError) else "")
        ) from error
