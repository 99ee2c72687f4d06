"""Names that a module offers but does not hold: each is imported when it is first asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from weft import _read_homes  # type: ignore[attr-defined]  # which is not in the stub


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


def names_in_stub(
    package: str,
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package whose names are in its stub.

    The modules of the package can be had as attributes, too.
    """
    namespace = vars(sys.modules[package])
    homes = _read_homes(namespace["__loader__"], namespace["__path__"][0])

    def __getattr__(name: str) -> Any:
        if name in homes and homes[name][0] != package:
            home, attribute = homes[name]
            value = getattr(importlib.import_module(home), attribute)
        elif importlib.util.find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            from weft._foreign_names import missing_name

            raise missing_name(package, name)
        namespace[name] = value
        return value

    return [*homes], __getattr__, lambda: sorted({*namespace, *homes})
