"""What a run leaves in its folder: commits of all that it consists of, and what it logged."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from weft._core.errors import StructureError
from weft._core.path import format_path
from weft._saving.collect import describe
from weft._saving.meta import check_meta
from weft.train.checkpoints import RESTORE_OPTIONS, Checkpoints
from weft.train.feed import Feed
from weft.train.history import History
from weft.train.lock import Lock
from weft.train.undo import Undo


class Commits:
    """The folder of a run. A commit holds objects, place in the data, facts and rows logged so far.

    Of several processes the first alone holds the lock and writes the history; all know it, as what
    is best or stale depends on it.

    Attributes:
      history: what was logged.
      last: the step of the last commit, or None.

    Args:
      folder: where it is; None for a run that leaves nothing.
      objects: what is saved and restored in place, by name.
      feed: the data.
      facts: what else must be the same where the run is gone on with, in terms of JSON.
      keep: how many commits stay.
      best: by what number one more stays.
      mode: "max" or "min".

    Raises:
      FolderInUseError: if another run has the folder.
    """

    def __init__(
        self,
        folder: Path | None,
        objects: Mapping[str, Any],
        feed: Feed,
        facts: Mapping[str, Any],
        *,
        keep: int,
        best: str | None,
        mode: str,
    ):
        self.history = History()
        self.last: int | None = None
        self._folder, self._objects, self._feed = folder, objects, feed
        self._facts = _checked_facts(facts)
        self._lock: Lock | None = None
        self._checkpoints: Checkpoints | None = None
        if folder is None:
            return
        _check_objects(objects)
        folder.mkdir(parents=True, exist_ok=True)
        if is_first_process():
            self._lock = Lock(folder / "lock")
        self.take_lock()
        try:
            self._checkpoints = Checkpoints(folder / "checkpoints", keep, best, mode)
            self.history = History(folder / "history.jsonl")
            if self._lock is None:
                self.history.leave_file()
        except BaseException:
            self.close()
            raise

    def take_lock(self) -> None:
        """Takes the folder, if that has not been done."""
        if self._lock is not None:
            self._lock.take()

    @property
    def latest(self) -> int | None:
        """The step that `resume` goes back to, or None."""
        return None if self._checkpoints is None else self._checkpoints.latest

    def resume(self, steps: int | None) -> dict[str, Any] | None:
        """Goes back to the last commit.

        Args:
          steps: how many the run is to have, if that is known.

        Returns:
          What was given to `save` besides; None if there is no commit.

        Raises:
          StructureError: if objects, data or facts are of another kind; nothing is changed.
          ValueError: if there are more steps already; nothing is changed.
        """
        if self._checkpoints is None or self.latest is None:
            self.history.cut(0)
            return None
        undo = Undo(self._objects)
        try:
            meta = self._checkpoints.restore(**self._objects)
            self._check_facts(meta["facts"])
            self._check_steps(meta["step"], steps)
            self._feed.restore(meta["data"])
        except BaseException:
            undo.put_back()
            raise
        self.last = meta["step"]
        self.history.cut(meta["step"])
        if self._lock is not None and len(self.history.rows) < meta["rows"]:
            warnings.warn(
                f"{self._folder}/history.jsonl has lost {meta['rows'] - len(self.history.rows)} "
                f"of the {meta['rows']} rows that were logged until step {meta['step']}",
                stacklevel=4,
            )
        return meta

    def save(self, step: int, **more: Any) -> None:
        """Commits a step, if that has not been done.

        Args:
          step: the step.
          **more: what else `resume` is to return, in terms of JSON.

        Raises:
          OSError: naming the path, if it cannot be written; older commits stay as they are.
        """
        if self._checkpoints is None or self.last == step:
            return
        try:
            self._save(self._checkpoints, step, more)
        except OSError as error:
            if error.filename is None:  # as where a disk is full
                error.filename = str(self._folder)
            raise
        self.last = step

    def _save(self, checkpoints: Checkpoints, step: int, more: dict[str, Any]) -> None:
        self.history.sync()
        rows = self.history.rows
        meta = {
            "step": step,
            "data": self._feed.state(),
            "facts": self._facts,
            "rows": len(rows),
            **more,
        }
        metrics = rows[-1][1] if rows and rows[-1][0] == step else {}
        checkpoints._save_all(step, self._objects, meta, metrics)

    def roll_back(self) -> int:
        """Restores the objects alone from the last commit, which there is; returns its step."""
        assert self._checkpoints is not None
        return self._checkpoints.restore(**self._objects)["step"]

    def where(self) -> str:
        """Says where the last commit is."""
        if self.last is None:
            return "There is no checkpoint."
        return f"The last checkpoint is of step {self.last}, in {self._folder}."

    def close(self) -> None:
        """Waits for what is being written, and lets others have the folder."""
        self.history.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
        if self._lock is not None:
            self._lock.release()

    def _check_facts(self, then: dict[str, Any]) -> None:
        faults = [
            f"{name}: then {then.get(name)!r}, now {self._facts.get(name)!r}"
            for name in sorted(then.keys() | self._facts)
            if json.dumps(then.get(name)) != json.dumps(self._facts.get(name))  # NaN is NaN
        ]
        if faults:
            raise StructureError(
                f"{self._folder} holds a run of other facts:\n  "
                + "\n  ".join(faults)
                + "\ngive the same, or begin in another folder"
            )

    def _check_steps(self, then: int, steps: int | None) -> None:
        if steps is not None and then > steps:
            raise ValueError(
                f"{self._folder} is at step {then} already, and steps={steps} is less: give "
                f"as many or more, `steps={then}`, or another folder"
            )


def _check_objects(objects: Mapping[str, Any]) -> None:
    """Raises TypeError now, and not after hours, for what could not be saved or restored."""
    found, _ = describe(objects, RESTORE_OPTIONS, "Checkpoints.restore", "facts")
    for path in found.fixed():
        raise TypeError(
            f"{format_path(path)} is an array that no loop can change in place: hold it in an "
            "`nnx.Variable`, and the Variable in what is given as `state`"
        )


def _checked_facts(facts: Mapping[str, Any]) -> Any:
    """Returns facts as they come back from JSON."""
    if not isinstance(facts, Mapping):
        raise TypeError(
            f"facts must be named, `facts={{'seed': 0}}`; found a {type(facts).__name__}"
        )
    facts = dict(facts)
    check_meta(facts, "facts")
    return json.loads(json.dumps(facts))


def is_first_process() -> bool:
    """Says whether this is the process that writes for all of them."""
    return jax.process_index() == 0
