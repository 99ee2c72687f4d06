"""The user's facts and metrics: what JSON says, and comes back as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PLAIN = (str, int, float, bool, type(None))


def check_meta(value: Any, where: str = "meta", around: tuple[int, ...] = ()) -> None:
    """Checks that a value comes back from JSON as it was; only tuples become lists.

    Raises:
      TypeError: naming the place of what would not.
    """
    if type(value) in _PLAIN:
        return
    if id(value) in around:
        raise TypeError(f"{where} is something that it is in itself, which JSON cannot say")
    around = (*around, id(value))
    if type(value) is dict:
        for key, child in value.items():
            if type(key) is not str:
                raise TypeError(
                    f"{where} has the key {key!r}; in JSON keys are texts: `{{str(key): ...}}`"
                )
            check_meta(child, f"{where}[{key!r}]", around)
    elif type(value) in (list, tuple):
        for i, child in enumerate(value):
            check_meta(child, f"{where}[{i}]", around)
    else:
        raise TypeError(
            f"{where} is of type {type(value).__name__}: expected what JSON says, which are "
            "numbers, texts, lists and dicts: `float(x)`, `str(x)`, `x.tolist()`; arrays are saved "
            "as objects"
        )


def metrics_of(metrics: Any) -> dict[str, float]:
    """Returns metrics as numbers by name.

    Raises:
      TypeError: for what is none.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"metrics must be numbers by name, `metrics={{'accuracy': 0.9}}`; found a "
            f"{type(metrics).__name__}. An object of that name is saved by another one"
        )
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            numbers[name] = None
        if numbers[name] is None or not isinstance(name, str):
            raise TypeError(f"metrics must be numbers by name; found {value!r} by {name!r}")
    return numbers
