"""Weft: neural networks on JAX with stateful, object-oriented models.

The public names stand in `__init__.pyi`. Each is imported when it is first used, so that a program
pays for what it needs.
"""

import importlib as _importlib
from typing import Any as _Any

__version__ = "0.1.0"


def _read_homes(loader: _Any, path: str) -> dict[str, tuple[str, str]]:
    """Returns, by name in a package's stub, the module that it is in and its name there."""
    stub = loader.get_data(f"{path}/__init__.pyi").decode()
    lines = [line.split() for line in stub.splitlines() if line.startswith("from ")]
    return {name: (home, attribute) for _, home, _, attribute, _, name in lines}


_HOMES = _read_homes(__loader__, __path__[0])
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise _import("weft._foreign_names", "missing_name")(__name__, name)
    value = globals()[name] = _import(*_HOMES[name])
    return value


def _import(home: str, attribute: str) -> _Any:
    if home != __name__:
        module = _importlib.import_module(home)
        if hasattr(module, attribute):
            return getattr(module, attribute)
    return _importlib.import_module(f"{home}.{attribute}")  # a module that nobody has needed yet


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
