"""Writing a step of a run: what must be done at once, and what goes on in the background."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from weft._saving import steps, storage
from weft._saving.facts import Fact
from weft._saving.leaves import Objects
from weft._saving.manifest import Manifest, files_in, is_stored, name_in_storage
from weft._saving.processes import text_of_first
from weft._saving.replacing import remove_folder
from weft._saving.shards import Box, Held, hold, is_cover

ARRAYS = "arrays"
_Checks = dict[str, list[tuple[Box, int]]]
_running: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Writing:
    """A step that is being written.

    When this has been made, the objects may change: there are copies of what they held.

    Args:
      folder: where the steps are.
      step: its number.
      found: the objects.
      facts: what is known of their leaves.
      meta: facts of the user.
      metrics: numbers by name.
      then: called by the first process when the step is in its place.

    Raises:
      OSError: naming the folder, if it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        found: Objects,
        facts: Sequence[Fact],
        meta: Any,
        metrics: Mapping[str, float],
        then: Callable[[], None],
    ):
        self._place, self._part = _agree_on_folders(folder, step)
        self._facts, self._shared = facts, dict(found.shared)
        self._meta, self._metrics, self._then = meta, metrics, then
        self._error: BaseException | None = None
        try:
            self._held: dict[str, Held] = {
                name_in_storage(fact.path): hold(found.leaves[fact.path])
                for fact in facts
                if is_stored(fact)
            }
            arrays = {name: held.array for name, held in self._held.items()}
            begin = storage.begin_saving if arrays else _begin_nothing
            self._end_of_arrays = begin(self._part / ARRAYS, arrays)
        except BaseException as error:
            remove_folder(self._part)
            _raise_as_of_system(error, self._place)
            raise
        self._thread = threading.Thread(target=self._run, name=f"saving step {step}")
        self._thread.start()
        _running.add(self._thread)
        _wait_at_exit()

    def wait(self) -> None:
        """Waits until nothing is left to be done."""
        self._thread.join()

    def check(self) -> None:
        """Raises what went wrong.

        Raises:
          OSError: naming the folder, if it could not be written; other steps are as they were.
        """
        error, self._error = self._error, None
        try:
            if error is not None:
                _raise_as_of_system(error, self._place)
                error.add_note(f"while {self._place} was saved")
                raise error
        finally:
            error = None

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:
            self._error = self._error or error
            traceback.clear_frames(self._error.__traceback__)
        finally:
            self._held = {}

    def _write(self) -> None:
        if jax.process_count() == 1:
            self._commit_or_remove(self._finish_own)
            return
        is_first = jax.process_index() == 0
        self._tell_first(is_first)
        storage.wait_for_all(f"{self._part.name} written")
        try:
            if is_first:
                self._commit_or_remove(self._gather)
        finally:
            storage.wait_for_all(f"{self._part.name} ended")
        if not self._place.exists():
            raise RuntimeError(
                f"{self._place} was not saved: see the error of the first process; older steps are "
                "as they were"
            )

    def _finish_own(self) -> _Checks:
        """Returns the checksums of what this process writes, when that is written."""
        checks = {name: held.checks() for name, held in self._held.items()}
        self._end_of_arrays()
        return checks

    def _tell_first(self, is_first: bool) -> None:
        """Leaves checksums, or what went wrong, where the first process finds them."""
        try:
            record: dict[str, Any] = {"checks": self._finish_own()}
        except Exception as error:
            record = {"error": f"{type(error).__name__}: {error}"}
            if not is_first:
                self._error = error
        with contextlib.suppress(OSError):  # then the first process finds nothing
            self._note(jax.process_index()).write_text(json.dumps(record), encoding="utf-8")

    def _note(self, process: int) -> Path:
        return self._part / f"process.{process}.json"

    def _gather(self) -> _Checks:
        """Returns the checksums of what all processes have written."""
        checks: _Checks = {}
        for process in range(jax.process_count()):
            note = self._note(process)
            record = json.loads(note.read_text(encoding="utf-8"))
            if "error" in record:
                raise RuntimeError(f"process {process} could not save: {record['error']}")
            for name, shards in record["checks"].items():
                found = [(tuple([tuple(pair) for pair in box]), crc) for box, crc in shards]
                checks.setdefault(name, []).extend(found)
            note.unlink()
        return checks

    def _commit_or_remove(self, checks_of: Callable[[], _Checks]) -> None:
        try:
            checks = checks_of()
            for name, held in self._held.items():
                if not is_cover([box for box, _ in checks.get(name, [])], held.array.shape):
                    raise RuntimeError(f"no process has written all of {name}")
            facts = {fact.path: fact for fact in self._facts}
            files = files_in(self._part)
            Manifest(facts, self._shared, checks, files, self._meta, self._metrics).write(
                self._part
            )
            steps.commit(self._part, self._place)
        except BaseException:
            remove_folder(self._part)
            raise
        self._then()


@functools.cache
def _wait_at_exit() -> None:
    """Lets programs that end without `close` end their saving first.

    Orbax needs executors, which Python shuts down before it waits for threads, and before
    everything of `atexit`. What is before that has no public name: without it the step is lost.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(_wait_for_running)


def _wait_for_running() -> None:
    for thread in list(_running):
        thread.join()


def _begin_nothing(folder: Path, arrays: Mapping[str, np.ndarray | jax.Array]) -> Any:
    return lambda: None


def _agree_on_folders(folder: Path, step: int) -> tuple[Path, Path]:
    """Returns where a step comes to, and the temporary folder, which the first process makes."""
    names, error = ["", ""], None
    if jax.process_index() == 0:
        try:
            place = steps.new_place(folder, step)
            names = [place.name, steps.begin(place).name]
        except OSError as found:
            found.filename = str(folder)
            error = found
    try:
        agreed = text_of_first("/".join(names)).split("/")
        if error is not None:
            raise error
    finally:
        error = None
    if not agreed[0]:
        raise OSError(f"the first process could not write into {folder}: see its error")
    return folder / agreed[0], folder / agreed[1]


def _raise_as_of_system(error: BaseException, place: Path) -> None:
    """Raises what the system says of an error, whoever reported it; returns if it says nothing."""
    number = storage.error_number(error)
    if number is not None:
        raise OSError(number, os.strerror(number), str(place)) from error
