"""A profile of some steps of a run, in the form that XProf and TensorBoard read."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from weft._saving.leaves import leaves_of


class ProfileWindow:
    """Records steps with JAX's profiler, from the beginning of one to the end of another.

    Args:
      steps: the first step and the one after the last.
      folder: the run's, where the profile goes into `profile`.
      objects: what the steps change.

    Raises:
      ValueError: if that is no window.
    """

    def __init__(self, steps: tuple[int, int], folder: Path, objects: Mapping[str, Any]):
        first, end = steps
        if not 1 <= first < end:
            raise ValueError(
                f"profile must be the first step, from 1, and the one after the last: "
                f"`profile=(100, 105)`, found {steps!r}"
            )
        self._first, self._end, self._folder = first, end, folder / "profile"
        self._objects = objects
        self._step = contextlib.ExitStack()
        self._is_on = False

    def begin_step(self, step: int) -> None:
        """Notes that a step begins."""
        if step == self._first or (self._first < step < self._end and not self._is_on):
            jax.profiler.start_trace(str(self._folder))
            self._is_on = True
        if self._is_on:
            self._step.enter_context(jax.profiler.StepTraceAnnotation("train", step_num=step))

    def end_step(self, step: int) -> None:
        """Notes that a step has ended; the last one waits for what it computes."""
        self._step.close()
        if self._is_on and step + 1 >= self._end:
            jax.block_until_ready([leaf for _, leaf in leaves_of(self._objects)])
            self.close()

    def close(self) -> None:
        """Ends the profile."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
