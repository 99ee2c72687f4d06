"""The checkpoints of a run: one file for each step, replaced as a whole."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from weft.train.history import sign_of


class Checkpoints:
    """Keeps the newest checkpoints of a folder, and the best one.

    Args:
      folder: made if it is missing.
      keep: how many of the newest stay.
      best: the metric by which one is the best and stays as well.
      mode: "max" or "min": which is better.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> from weft import train
      >>> checkpoints = train.Checkpoints(tempfile.mkdtemp(), keep=1, best="acc")
      >>> count = nnx.Variable(1)
      >>> for step in 1, 2, 3:
      ...     checkpoints.save(step, metrics={"acc": -step}, meta={"step": step}, count=count)
      >>> checkpoints.steps, checkpoints.best, checkpoints.restore(count=count)
      ([1, 3], 1, {'step': 3})
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int = 3,
        best: str | None = None,
        mode: str = "max",
    ):
        self._folder, self._keep, self._best = Path(folder), keep, best
        self._sign = sign_of(mode)
        self._file_tools = importlib.import_module("weft.tools.checkpoint")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._metrics = {
            int(file.stem): self._file_tools.load(file).data["metrics"]
            for file in sorted(self._folder.glob("*.weft"))
        }

    @property
    def steps(self) -> list[int]:
        """The steps that can be restored."""
        return sorted(self._metrics)

    @property
    def latest(self) -> int | None:
        """The newest step."""
        return max(self._metrics, default=None)

    @property
    def best(self) -> int | None:
        """The step with the best metric."""
        found = {s: m[self._best] for s, m in self._metrics.items() if self._best in m}
        return max(found, key=lambda step: (self._sign * found[step], -step), default=None)

    def save(
        self,
        step: int,
        meta: Any = None,
        metrics: dict[str, float] | None = None,
        **objects: Any,
    ) -> None:
        """Saves objects as those of a step."""
        data = {"meta": meta, "metrics": metrics or {}}
        self._file_tools.save(self._file(step), objects, data)
        self._metrics[step] = data["metrics"]
        for old in set(self.steps[: -self._keep]) - {self.best}:
            self._file(old).unlink()
            del self._metrics[old]

    def restore(self, step: int | None = None, **objects: Any) -> Any:
        """Restores objects in place, from the newest step if none is given; returns its meta."""
        step = self.latest if step is None else step
        if step is None:
            raise FileNotFoundError(f"there is no checkpoint in {self._folder}")
        return self._file_tools.restore(self._file(step), objects)["meta"]

    def close(self) -> None:
        """Waits for what is being saved."""

    def _file(self, step: int) -> Path:
        return self._folder / f"{step:010}.weft"
