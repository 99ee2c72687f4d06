"""Names that a module offers but does not hold: each is imported when it is first asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
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


def names_in(
    package: str, homes: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package.

    The modules of the package can be had as attributes, too.

    Args:
      package: the package's name.
      homes: by module, the names that are in it; those of the package itself are modules.
    """
    namespace = vars(sys.modules[package])
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def __getattr__(name: str) -> Any:
        home = home_of.get(name, package)
        if home != package:
            module = importlib.import_module(home)
            is_there = hasattr(module, name)  # a module that nobody has needed yet is not
            value = getattr(module, name) if is_there else importlib.import_module(f"{home}.{name}")
        elif importlib.util.find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            from weft._core.foreign_names import missing_name

            raise missing_name(package, name)
        namespace[name] = value
        return value

    return [*home_of], __getattr__, lambda: sorted({*namespace, *home_of})
