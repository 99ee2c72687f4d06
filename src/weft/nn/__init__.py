"""Layers and the functions they are made of: one family per file.

The names stand in `__init__.pyi`. Each is imported when it is first used.
"""

from weft._elsewhere import names_in_stub as _names_in_stub

__all__, __getattr__, __dir__ = _names_in_stub(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
