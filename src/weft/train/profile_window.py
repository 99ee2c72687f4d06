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
      window: the first step and the one after the last.
      steps: all steps of the run, or None.
      folder: the run's, where the profile goes into `profile`.
      objects: what the steps change.

    Raises:
      ValueError: if that is no window.
    """

    def __init__(
        self,
        window: tuple[int, int],
        steps: int | None,
        folder: Path,
        objects: Mapping[str, Any],
    ):
        is_pair = isinstance(window, (tuple, list)) and len(window) == 2
        first, end = window if is_pair else (0, 0)
        if not all(isinstance(step, int) for step in (first, end)) or not 1 <= first < end:
            raise ValueError(
                f"profile must be the first step, from 1, and the one after the last: "
                f"`profile=(100, 105)`, found {window!r}"
            )
        if steps is not None and first > steps:
            raise ValueError(
                f"profile={window!r} begins after the last of steps={steps}: nothing would be "
                f"recorded; give steps that the run makes, such as `profile=({steps}, {steps + 1})`"
            )
        self._first, self._end, self._folder = first, end, folder / "profile"
        self._objects = objects
        self._step = contextlib.ExitStack()
        self._is_on = False

    def begin_step(self, step: int, count: int = 1) -> None:
        """Notes that a call begins.

        Args:
          step: its last step.
          count: how many steps it makes.
        """
        if not self._is_on and step >= self._first and step - count + 1 < self._end:
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
