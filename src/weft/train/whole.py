"""Whole numbers that a caller gives: how many, how often."""

from __future__ import annotations

import operator
from typing import Any


def whole(name: str, value: Any, least: int = 1, *, otherwise: str = "") -> int:
    """Returns a number as an int.

    Args:
      name: what it is called where it is given.
      value: the number; one of NumPy will do.
      least: the smallest that is allowed.
      otherwise: what else could have been given, for the message.

    Raises:
      ValueError: if it is none, or less.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise ValueError(
            f"{name} must be a whole number from {least} on{otherwise}; found {value!r}"
            + (f": `{name}=int({value!r})`" if isinstance(value, float) else "")
        )
    return number
