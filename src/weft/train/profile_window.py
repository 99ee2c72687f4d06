"""A profile of some steps of a run, in the form that XProf and TensorBoard read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jax


class ProfileWindow:
    """Records steps with JAX's profiler, from the beginning of one to the end of another.

    Args:
      steps: the first step and the one after the last.
      folder: where the profile goes.

    Raises:
      ValueError: if that is no window.
    """

    def __init__(self, steps: tuple[int, int], folder: Path):
        first, end = steps
        if not 1 <= first < end:
            raise ValueError(
                f"profile must be the first step, from 1, and the one after the last: "
                f"`profile=(100, 105)`, found {steps!r}"
            )
        self._first, self._end, self._folder = first, end, folder
        self._step: contextlib.AbstractContextManager[Any] | None = None
        self._is_on = False

    def begin_step(self, step: int) -> None:
        """Notes that a step begins."""
        if step == self._first or (self._first < step < self._end and not self._is_on):
            jax.profiler.start_trace(str(self._folder))
            self._is_on = True
        if self._is_on:
            self._step = jax.profiler.StepTraceAnnotation("train", step_num=step)
            self._step.__enter__()

    def end_step(self, step: int, result: Any) -> None:
        """Notes that a step has ended, with what it logged, which the last one waits for."""
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None
        if self._is_on and step + 1 >= self._end:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends the profile."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
