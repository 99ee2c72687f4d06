"""Showing objects: in colour and foldable in notebooks, as text elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def display(*args: Any) -> None:
    """Shows objects: by treescope in a notebook, else as text, coloured where rich is installed.

    Args:
      *args: models, Variables, States or other values.

    Example:
      >>> import weft as nnx
      >>> nnx.display(nnx.Param(1.0))
      Param(1.0)
    """
    if _in_notebook() and importlib.util.find_spec("treescope") is not None:
        import treescope

        for arg in args:
            treescope.display(arg)
        return
    for arg in args:
        _print(repr(arg))


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"


def _print(text: str) -> None:
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console

        Console().print(text, markup=False, soft_wrap=True)
    else:
        print(text)
