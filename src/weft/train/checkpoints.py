"""The checkpoints of a run: a safetensors file for each step, replaced as a whole, and checked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft._core.errors import CheckpointError
from weft._saving.save import load, restore, save
from weft.train.history import sign_of


class Checkpoints:
    """Keeps the newest checkpoints of a folder, and the best one.

    Each is a file of `nnx.save`, so a process that is killed while it saves leaves those before as
    they were, and one that is damaged is found out by its checksums.

    Attributes:
      steps: the steps there are, in order.
      latest: the newest of them, None if there is none.
      best: the one with the best metric, None if none has it.

    Args:
      folder: made if it is missing.
      keep: how many of the newest stay.
      best: the metric by which one is the best and stays as well.
      mode: "max" or "min": which is better.

    Raises:
      ValueError: for another mode, and a `keep` below 1.

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
        if keep < 1:
            raise ValueError(f"keep must be 1 or more, found {keep}: at least the newest stays")
        self._folder, self._keep, self._best = Path(folder), keep, best
        self._sign = sign_of(mode)
        self._folder.mkdir(parents=True, exist_ok=True)
        files = (file for file in self._folder.glob("*.safetensors") if file.stem.isdigit())
        self._metrics = {int(file.stem): _metrics_in(file) for file in files}

    @property
    def steps(self) -> list[int]:
        """The steps that were saved, in order."""
        return sorted(self._metrics)

    @property
    def latest(self) -> int | None:
        """The newest step."""
        return max(self._metrics, default=None)

    @property
    def best(self) -> int | None:
        """The step with the best metric; the first of them where several are."""
        found = {s: m[self._best] for s, m in self._metrics.items() if self._best in m}
        return max(found, key=lambda step: (self._sign * found[step], -step), default=None)

    def save(
        self,
        step: int,
        meta: Any = None,
        metrics: Mapping[str, float] | None = None,
        **objects: Any,
    ) -> None:
        """Saves objects as those of a step, and deletes what is to stay no longer.

        Args:
          step: a number from 0 on.
          meta: facts for the checkpoint, in terms of JSON.
          metrics: numbers by name; by one of them the best step is known.
          **objects: see `nnx.save`.

        Raises:
          OSError: if it cannot be written; the other checkpoints stay as they are.
        """
        numbers = {name: float(value) for name, value in (metrics or {}).items()}
        save(self._file(step), meta={"meta": meta, "metrics": numbers}, **objects)
        self._metrics[step] = numbers
        for old in set(self.steps[: -self._keep]) - {self.best}:
            self._file(old).unlink(missing_ok=True)
            del self._metrics[old]

    def restore(self, step: int | None = None, **objects: Any) -> Any:
        """Restores objects in place, all of them or none.

        Args:
          step: which; None for the newest that is not damaged. Of those that are a warning tells.
          **objects: see `nnx.restore`.

        Returns:
          What was given to `save` as `meta`.

        Raises:
          FileNotFoundError: if there is no such step.
          CheckpointError: if the step that was asked for is damaged, or all are.
          StructureError: if the objects are others than those that were saved.
        """
        steps = self.steps[::-1] if step is None else [step]
        if not set(steps) <= self._metrics.keys() or not steps:
            asked = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise FileNotFoundError(f"there is {asked} in {self._folder}, which has {self.steps}")
        faults = []
        for chosen in steps:
            try:
                meta = restore(self._file(chosen), **objects)["meta"]
            except CheckpointError as error:
                faults.append(str(error))
            else:
                if faults:
                    text = "\n  ".join(faults)
                    warnings.warn(f"step {chosen} is restored, as\n  {text}", stacklevel=2)
                return meta
        raise CheckpointError("\n".join(faults))

    def close(self) -> None:
        """Nothing is being written any more once `save` has returned."""

    def _file(self, step: int) -> Path:
        return self._folder / f"{step:010}.safetensors"


def _metrics_in(file: Path) -> dict[str, float]:
    """Returns the metrics of a checkpoint; none of one that is damaged."""
    try:
        return load(file).meta["metrics"]
    except (CheckpointError, KeyError, TypeError):
        return {}
