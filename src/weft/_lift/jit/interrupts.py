"""Signals held back while arrays are in the hands of JAX's Python code.

A call of a compiled function that is not the first runs in C, so that Python handles a signal
before or after it. The first one, and any with effects, returns through Python code of JAX, where
a handler that raises (Ctrl-C, a SIGTERM that ends the process, a time-out) would lose the outcome:
and the arrays that were donated to it are gone.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

_SIGNALS = sorted(signal.valid_signals())

Handler = Callable[[int, Any], Any]


class HeldInterrupts:
    """Holds back all signals that Python has a handler for; only the main thread handles any.

    Attributes:
      held: whether signals are being held back.
    """

    __slots__ = ("_handlers", "_pending", "held")

    def __init__(self) -> None:
        self.held = False
        self._handlers: dict[int, Handler] = {}
        self._pending: list[int] = []

    def hold(self) -> None:
        """Begins to hold signals back, if that has not begun."""
        if self.held or threading.current_thread() is not threading.main_thread():
            return
        self.held = True
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                # Kept before it is replaced: a signal may come in between.
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if number not in self._pending:
            self._pending.append(number)

    def release(self) -> None:
        """Lets signals through again, first of all those that came meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            return  # the main thread holds them, in a call of its own
        try:
            while self._handlers:
                number, handler = next(iter(self._handlers.items()))
                signal.signal(number, handler)
                del self._handlers[number]
            self.held = False
            while self._pending:
                signal.raise_signal(self._pending.pop())
        finally:
            if self._handlers or self._pending:  # one that is let through already raised
                self.release()
