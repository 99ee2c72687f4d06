"""The checkpoints of a run: one folder for each step, written in the background, all checked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from weft._core.errors import CheckpointError
from weft._core.tracebacks import boundary, warn
from weft._saving import processes, read_step, steps, storage
from weft._saving.collect import collect, match_objects
from weft._saving.manifest import Manifest, NewerFormatError
from weft._saving.meta import check_meta, metrics_of
from weft._saving.place import check_places
from weft._saving.write_step import Writing
from weft.train.history import sign_of
from weft.train.whole import whole

RESTORE_OPTIONS = {"self", "step", "strict", "cast"}


class Checkpoints:
    """Keeps the newest checkpoints of a folder, and the best one.

    A step is saved in the background, while training goes on. It appears as a whole: whenever the
    process is killed, the steps before are there. All of it has checksums: a step that is damaged
    is never restored, and one that is saved with several devices or processes is restored with any
    others. The arrays are written by Orbax.

    Every process of a program calls `save` and `restore`, with one folder that all of them see.

    Args:
      folder: made if it is missing.
      keep: how many of the newest stay.
      best: the metric by which one is the best and stays as well.
      mode: "max" or "min": which is better.

    Raises:
      ValueError: for another mode, to keep none, or a folder of which the name is a pattern (`*`,
        `?`, `[`).
      ModuleNotFoundError: without Orbax.
      OSError: if the folder cannot be made.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> from weft import train
      >>> count = nnx.Variable(0)
      >>> with train.Checkpoints(tempfile.mkdtemp(), keep=1, best="acc") as checkpoints:
      ...     for step in 1, 2, 3:
      ...         count.set_value(step)
      ...         checkpoints.save(step, metrics={"acc": -step}, meta={"seen": step}, count=count)
      >>> checkpoints.steps, checkpoints.latest, checkpoints.best
      ([1, 3], 3, 1)
      >>> checkpoints.restore(1, count=count), count.value
      ({'seen': 1}, 1)
    """

    @boundary
    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int = 3,
        best: str | None = None,
        mode: str = "max",
    ):
        keep = whole("keep", keep)
        if not isinstance(best, (str, type(None))):
            raise TypeError(f"best must be the name of a metric, such as 'val/acc'; found {best!r}")
        storage.check_installed()
        self._folder, self._keep = Path(os.path.abspath(folder)), keep
        storage.check_folder(self._folder)
        self._best, self._sign = best, sign_of(mode)
        self._writing: Writing | None = None
        self._manifests: dict[Path, Manifest] = {}
        self._damaged: dict[Path, str] = {}
        self._folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            steps.clean(self._folder)

    def __repr__(self) -> str:
        return f"Checkpoints({str(self._folder)!r}, steps={list(steps.steps_in(self._folder))})"

    # -- what there is

    @property
    @boundary
    def steps(self) -> list[int]:
        """The steps that can be restored, after waiting for what is being saved.

        What is known to be damaged is not among them, and warned of once.

        Raises:
          CheckpointError: if there are steps, but all of them are damaged; or if the newest is of
            a newer format.
          OSError: if the last save failed.
        """
        self.wait()
        return list(self._sound())

    @property
    @boundary
    def latest(self) -> int | None:
        """The newest of `steps`; None if nothing was ever saved. Raises as it does."""
        self.wait()
        return max(self._sound(), default=None)

    @property
    @boundary
    def best(self) -> int | None:
        """The one of `steps` with the best metric, the first of equal ones. Raises as it does."""
        self.wait()
        return self._best_of(self._sound())

    def _best_of(self, sound: Mapping[int, Manifest]) -> int | None:
        name = self._best or ""
        values = {step: manifest.metrics.get(name) for step, manifest in sound.items()}
        found = {
            step: self._sign * value
            for step, value in values.items()
            if value is not None and not math.isnan(value)
        }
        return max(found, key=lambda step: (found[step], -step), default=None)

    def _sound(self) -> dict[int, Manifest]:
        """Returns the manifests of all steps of which nothing is known to be damaged; warns."""
        sound, faults = self._survey()
        for place, error in faults.items():
            self._report(place, error)
        if faults and not sound:
            raise CheckpointError(
                f"all steps in {self._folder} are damaged: {list(faults.values())[-1]}; get the "
                "folder from elsewhere, or begin in another one"
            )
        return sound

    def _survey(self) -> tuple[dict[int, Manifest], dict[Path, CheckpointError]]:
        sound, faults = {}, {}
        for step, (*_, place) in steps.steps_in(self._folder).items():
            try:
                sound[step] = self._manifest(place)
            except NewerFormatError:
                raise
            except CheckpointError as error:
                if place.exists():  # else it was removed in the meantime
                    faults[place] = error
        return sound, faults

    def _manifest(self, place: Path) -> Manifest:
        """Returns the manifest of a step, of which all files are there."""
        if place in self._damaged:
            raise CheckpointError(self._damaged[place])
        manifest = self._manifests.get(place)
        if manifest is None:
            manifest = self._manifests[place] = Manifest.read(place)
        manifest.check_files(place, content=False)
        return manifest

    def _report(self, place: Path, error: CheckpointError) -> None:
        if place not in self._damaged:
            self._damaged[place] = str(error)
            warn(f"{error}; it is passed over")

    # -- saving

    @boundary
    def save(
        self,
        step: int,
        *,
        meta: Any = None,
        metrics: Mapping[str, float] | None = None,
        **objects: Any,
    ) -> None:
        """Saves objects as those of a step, in the background: they may change at once.

        A save that has not ended is waited for first, so that there is at most one. A step that
        was saved before is replaced once the new one is complete.

        Args:
          step: its number.
          meta: facts for the step, such as `{"epoch": 7}`: what JSON can say.
          metrics: numbers by name, of which one may be what the best step is known by.
          **objects: models, optimizers, `nnx.Rngs`, metrics, States, or containers of such and of
            arrays.

        Raises:
          TypeError: for what cannot be saved, which is named, and metrics that are no numbers.
          ValueError: for a step that is no whole number from 0 on.
          OSError: if this save cannot begin, or the one before has failed; older steps are as they
            were.
        """
        self._save_all(step, objects, meta, metrics)

    def _save_all(
        self,
        step: int,
        objects: Mapping[str, Any],
        meta: Any,
        metrics: Mapping[str, float] | None,
    ) -> None:
        """Saves objects of any names, also those of the options of `save`."""
        self.wait()
        step = whole("step", step, 0)
        check_meta(meta)
        numbers = metrics_of({} if metrics is None else metrics)
        found, facts = collect(objects, RESTORE_OPTIONS, "Checkpoints.restore")
        self._writing = Writing(
            self._folder, step, found, facts, meta, numbers, lambda: self._prune(step)
        )

    @boundary
    def wait(self) -> None:
        """Waits for what is being saved.

        Raises:
          OSError: if it could not be saved; older steps are as they were.
        """
        if self._writing is not None:
            self._writing.wait()  # if that is interrupted, it goes on
            writing, self._writing = self._writing, None
            writing.check()

    @boundary
    def close(self) -> None:
        """Waits for what is being saved, and raises as `wait` does. A `with` statement does so."""
        self.wait()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _prune(self, saved: int) -> None:
        """Removes what need not stay, after a step was saved."""
        try:
            sound, _ = self._survey()
        except NewerFormatError:
            return
        newest = sorted(sound)[-self._keep :]
        stay = {*newest, saved, self._best_of(sound)}
        for step, places in steps.steps_in(self._folder).items():
            *former, _ = places
            for place in places if step < newest[0] and step not in stay else former:
                steps.remove(place)
                self._manifests.pop(place, None)

    # -- restoring

    @boundary
    def restore(
        self, step: int | None = None, *, strict: bool = True, cast: bool = False, **objects: Any
    ) -> Any:
        """Writes the state of a step into objects, in place: all of it or nothing.

        Arrays are placed as those that they replace, on their devices with their sharding, whatever
        they were saved from; into abstract objects (`nnx.eval_shape`) as their sharding says.

        Args:
          step: which; None for the newest that is not damaged.
          strict: whether every leaf must have been saved, and everything saved be asked for; False
            takes what is in both, which must be something.
          cast: whether arrays are converted to the dtype of those they replace.
          **objects: by the names they were saved by, objects of the same structure. None for one
            that was saved and is not wanted.

        Returns:
          The facts that were given to `save` as `meta`.

        Raises:
          CheckpointError: if the step, or without one every step, is damaged, or of a newer format.
          StructureError: if it does not fit; lists every path that is missing, unexpected, or of
            another shape, dtype or sharing.
          FileNotFoundError: if there is no such step, or none at all.
        """
        self.wait()
        if step is not None:
            return self._restore(whole("step", step, 0), objects, strict, cast)
        while True:
            newest = self._newest_of_first()
            try:
                return self._restore(newest, objects, strict, cast)
            except NewerFormatError:
                raise
            except CheckpointError as error:
                self._report(steps.steps_in(self._folder)[newest][-1], error)

    def _newest_of_first(self) -> int:
        """Returns the newest step as the first process sees it, for all of them."""
        if jax.process_index():
            text = processes.text_of_first("")
        else:
            text = "damaged"
            try:
                text = str(max(self._sound(), default=""))
            finally:
                processes.text_of_first(text)
        if text == "damaged":
            raise CheckpointError(f"all steps in {self._folder} are damaged: see the first process")
        if not text:
            raise FileNotFoundError(f"no step has been saved in {self._folder}")
        return int(text)

    def _restore(self, step: int, objects: dict[str, Any], strict: bool, cast: bool) -> Any:
        places = steps.steps_in(self._folder)
        if step not in places:
            raise FileNotFoundError(
                f"there is no step {step} in {self._folder}, but of {list(places) or 'none'}"
            )
        place = places[step][-1]
        manifest = Manifest.read(place)
        manifest.check_files(place, content=True)
        found, wanted, sources = match_objects(
            place,
            manifest.facts,
            manifest.shared,
            objects,
            strict=strict,
            cast=cast,
            call=f"train.Checkpoints({str(self._folder)!r}).restore(",
            load="",
        )
        olds = found.placed()
        check_places(olds, {path: wanted[path] for path in sources})
        found.write(read_step.read(place, manifest, sources, wanted, olds))
        return manifest.meta
