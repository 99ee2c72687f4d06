"""Signals that ask a run to end, noted until a step is complete and saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
import weakref
from types import FrameType
from typing import Any, Self

import jax


class StopSignals:
    """Notes the first SIGTERM or SIGINT, while it is entered; a second one ends the process.

    That a second one ends the process is left to the system, as Python would wait for what is being
    compiled or computed. Only the main thread of a program hears signals; elsewhere none comes. A
    process that is forked meanwhile, such as a worker that loads data, can be terminated as ever.

    Attributes:
      number: the signal that came, or None.

    Example:
      >>> import signal
      >>> from weft import train
      >>> with train.StopSignals() as signals:
      ...     signal.raise_signal(signal.SIGTERM)
      ...     signals.number is signal.SIGTERM
      True
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._are_many = False

    def __enter__(self) -> Self:
        self.number = None
        self._are_many = jax.process_count() > 1  # then JAX hears SIGTERM, and tells all processes
        if not self._are_many and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # ignored, or not Python's to give back
                    self._before[number] = before
                    signal.signal(number, self._note)
        if self._before:
            _entered.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        _entered.discard(self)
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = signal.Signals(number)
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)

    def poll(self, step: int) -> bool:
        """Says whether to end after a step, the same in all processes of a run.

        Args:
          step: the step that was made.
        """
        if self._are_many:
            from weft._core.jax_names import reached_preemption_sync_point

            if reached_preemption_sync_point(step):
                self.number = signal.SIGTERM
        return self.number is not None

    def pass_over(self, step: int) -> None:
        """Warns of the signal that came, if nothing will come of it.

        Args:
          step: the step that was broken off.
        """
        if self.number is not None:
            warnings.warn(
                f"{self.number.name} came in step {step}, of which the loop was left by `break` or "
                "an error: nothing is saved, and the program goes on",
                RuntimeWarning,
                stacklevel=4,
            )

    def leave(self) -> None:
        """Ends the program, or what is typed in at a prompt, for the signal that came.

        Raises:
          SystemExit: with the exit status that shells give to it, 143 for SIGTERM.
          KeyboardInterrupt: at a prompt and in a notebook, which stay.
        """
        if self.number is not None:
            if hasattr(sys, "ps1"):
                raise KeyboardInterrupt
            raise SystemExit(128 + self.number)


_entered: weakref.WeakSet[StopSignals] = weakref.WeakSet()


def _leave_to_the_child() -> None:
    """Lets a process that was forked end by SIGTERM, of which it would only take note.

    Not by SIGINT, which a terminal sends to all: who waits for its data is to finish the step.
    """
    for signals in _entered:
        before = signals._before.get(signal.SIGTERM)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_to_the_child)
