"""Captures: sown and perturbed values taken out of a call instead of kept in the model.

A *capture* is active while a function wrapped by `nnx.capture` runs; it says which Variable types
it takes and gathers them by the path of the Module that made them.
"""

from __future__ import annotations

import threading
from typing import Any


class _Active(threading.local):
    def __init__(self) -> None:
        self.stack: list[Any] = []


active = _Active()


def active_capture(module: Any, variable_type: type) -> Any:
    """Returns the innermost capture that takes this type of a Module's values, or None."""
    for capture in reversed(active.stack):
        if capture.takes(module, variable_type):
            return capture
    return None
