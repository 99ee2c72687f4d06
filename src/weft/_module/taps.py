"""Taps: where a Module is asked what becomes of what it sows and perturbs; see `capture`."""

from __future__ import annotations

from typing import Any

from weft._object.pytree import Pytree, attributes
from weft._variable.variable import Variable

TAPS = "_taps"
"""The attribute in which a Module holds the taps of the captures around."""


class _Ignored:
    """Stands for a capture around a Module that does not take values of a type."""

    def sow(self, *args: Any) -> None:
        return None

    def perturb(self, module: Pytree, variable_type: type[Variable], name: str, value: Any) -> Any:
        return value


_IGNORED = _Ignored()


def active_capture(module: Pytree, variable_type: type[Variable]) -> Any:
    """Returns the innermost capture around a Module that takes a type; None outside captures."""
    taps = attributes(module).get(TAPS)
    if taps is None:
        return None
    return next((tap for tap in reversed(taps) if tap.takes(variable_type)), _IGNORED)
