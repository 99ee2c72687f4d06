"""What code asks about the peer's second kind of Module, which Weft does not have."""

from __future__ import annotations


def current_module() -> None:
    """Returns None: no Module of that kind is being called.

    Example:
      >>> from weft.bridge.module import current_module
      >>> current_module() is None
      True
    """
