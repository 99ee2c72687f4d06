"""Names that a module offers but does not hold: each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def names_from(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__`.

    Args:
      module: the module's name.
      homes: by name, the module that it is in; followed by a colon and its name there, if that is
        another one.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, attribute = homes[name].partition(":")
        return getattr(importlib.import_module(home), attribute or name)

    return __getattr__
