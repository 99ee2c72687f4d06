"""Interrupts held back while arrays are in the hands of JAX's Python code.

A call of a compiled function that is not the first runs in C, so that Ctrl-C comes before or after
it. The first one, and any with callbacks, returns through Python code of JAX, where it would lose
the outcome: and the arrays that were donated to it are gone.
"""

from __future__ import annotations

import signal
import threading
from typing import Any


class HeldInterrupts:
    """Holds Ctrl-C back; only the main thread is ever interrupted.

    Attributes:
      held: whether interrupts are being held back.
    """

    __slots__ = ("_handler", "_pending", "held")

    def __init__(self) -> None:
        self.held = False
        self._handler: Any = None
        self._pending: list[tuple[Any, ...]] = []

    def hold(self) -> None:
        """Begins to hold interrupts back, if that has not begun."""
        if self.held or threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            self._handler = handler
            signal.signal(signal.SIGINT, lambda *signals: self._pending.append(signals))
            self.held = True

    def release(self) -> None:
        """Lets them through again, first of all one that came meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            return  # the main thread holds them, in a call of its own
        self.held = False
        signal.signal(signal.SIGINT, self._handler)
        pending, self._pending = self._pending, []
        if pending:
            self._handler(*pending[-1])
