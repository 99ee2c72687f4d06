"""The loop: the user's own `for` and step, with all that long training needs around them."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from weft.train.agreement import agreement, structure_of, values_of
from weft.train.commits import Commits, is_first_process
from weft.train.feed import Feed, from_json
from weft.train.history import History, is_stale, sign_of
from weft.train.nan_guard import NaNGuard
from weft.train.outlets import Outlets, Sink
from weft.train.profile_window import ProfileWindow
from weft.train.progress import Bar
from weft.train.scan_steps import check_multiple
from weft.train.signals import StopSignals
from weft.train.values import Logged, Mean
from weft.train.whole import whole

B = TypeVar("B")


class Run(Generic[B]):
    """Goes through the batches of a training run, which it saves, resumes, logs and guards.

    A folder that holds a checkpoint is gone on with, to the bit as if nothing had happened:
    objects, place in the data and what was logged are restored. The loop ends after `steps`, by
    `stop`, or by SIGTERM or SIGINT, which save first and then end the program with status 143 or
    130. One that is left by `break` or an error does not save.

    Attributes:
      step: the steps that are done; in the loop, with the present one.
      steps: all of them, or None.
      folder: where everything is kept, or None.
      stopped: what was given to `stop`, also in an earlier process. Set it to None to go on.

    Args:
      folder: where checkpoints, history and what sinks write are kept; None for no files at all.
      state: what the loop changes, by name: models, optimizers, streams, metrics, averages.
      data: any iterable of batches. It is begun again where it ends, unless it is an iterator.
      steps: how many steps there are in all; None for as many as the data has batches.
      save_every: steps between checkpoints. There is one at the end besides, at a signal, and
        wherever `best` is better than ever.
      keep: how many checkpoints stay.
      best: the name of a number that is logged; the checkpoint where it is best stays as well.
      mode: "max" or "min": which value of it is better.
      log_every: steps between rows of numbers; what is on the device is fetched only then.
      steps_per_call: how many batches are handed out as one, for a step made by `train.scanned`.
      sinks: where rows go: any `f(step, row)`. A progress bar, `train.Bar()`, if None.
      on_nan: what happens where the loop logs NaN or an infinity: "raise" an error, "skip" the
        step, which waits for the device at each one and keeps the state twice, or "rollback" to the
        last checkpoint and go on with the data that is next.
      profile: a first step and the one after the last, of which JAX's profiler writes a profile.
      facts: what decides the numbers besides, in terms of JSON, such as `vars(options)`. To resume
        with other facts is an error.

    Raises:
      FolderInUseError: if another run has the folder.
      TypeError: for state that could not be saved or changed in place, facts that are not JSON, and
        data of no batches.
      ValueError: if an option is out of range, or the folder is further than `steps`.
      StructureError: if the checkpoint does not fit the state, the data or the facts; nothing is
        changed. Of several processes in all, if state, data, facts or settings differ.

    Example:
      >>> import jax.numpy as jnp, optax, tempfile
      >>> import weft as nnx
      >>> from weft import train
      >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
      >>> @nnx.jit
      ... def train_step(model, optimizer, x):
      ...     loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - 2 * x) ** 2))(model)
      ...     optimizer.update(model, grads)
      ...     return {"loss": loss}
      >>> run = train.Run(tempfile.mkdtemp(), state={"model": model, "optimizer": optimizer},
      ...                 data=[jnp.ones((4, 1))], steps=40, log_every=20)
      >>> for batch in run:
      ...     run.log(train_step(model, optimizer, batch))
      step 20/40  loss ...
      step 40/40  loss ...
      >>> list(run.history["loss"])
      [20, 40]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        *,
        state: Mapping[str, Any],
        data: Iterable[B],
        steps: int | None = None,
        save_every: int = 1000,
        keep: int = 3,
        best: str | None = None,
        mode: str = "max",
        log_every: int = 20,
        steps_per_call: int = 1,
        sinks: Iterable[Sink] | None = None,
        on_nan: str = "raise",
        profile: tuple[int, int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ):
        if not isinstance(state, Mapping):
            raise TypeError(
                f"state must name its objects: `state={{'model': model, 'optimizer': optimizer}}`; "
                f"found {type(state).__name__}"
            )
        if steps is not None:
            steps = whole("steps", steps, otherwise=", or None for those of the data")
        steps_per_call = whole("steps_per_call", steps_per_call)
        for name, every in (("log_every", log_every), ("save_every", save_every)):
            check_multiple(name, every, steps_per_call)
        if sinks is not None and not isinstance(sinks, Iterable):
            raise TypeError(f"sinks must be several, such as `[train.Bar()]`; found {sinks!r}")
        if folder is None and (profile is not None or on_nan == "rollback"):
            what = "a profile" if profile is not None else "on_nan='rollback'"
            raise ValueError(f"{what} needs a folder: `train.Run('runs/first', ...)`")
        self.step, self.steps = 0, steps
        self.folder = None if folder is None else Path(folder)
        self.stopped: str | None = None
        self._objects = dict(state)
        self._feed = Feed(data, again=steps is not None)
        self._save_every, self._log_every, self._per_call = save_every, log_every, steps_per_call
        self._best, self._sign = best, sign_of(mode)
        self._rolls_back = on_nan == "rollback"
        self._logged = Logged()
        self._in_step = 0  # of how many steps the loop's body is running
        self._is_shown = False
        self._profile = (
            ProfileWindow(profile, steps, self.folder, self._objects)
            if profile is not None and self.folder is not None
            else None
        )
        self._loop: weakref.ref[Generator[B, None, None]] | None = None
        settings = {
            "a folder": folder is not None,
            "steps": steps,
            "save_every": save_every,
            "log_every": log_every,
            "steps_per_call": steps_per_call,
            "keep": keep,
            "best": best,
            "mode": mode,
            "on_nan": on_nan,
            "facts": facts or {},
        }
        with contextlib.ExitStack() as failed:
            with agreement(lambda: {**settings, **self._begin_notes()}):
                self._commits = Commits(
                    self.folder,
                    self._objects,
                    self._feed,
                    facts or {},
                    keep=keep,
                    best=best,
                    mode=mode,
                )
                failed.callback(self.close)
                self._guard = NaNGuard(
                    on_nan, self._objects, self._commits.roll_back, self._commits.where
                )
                sinks = [Bar()] if sinks is None else sinks
                shown = sinks if is_first_process() else []
                self._outlets = Outlets([self.history.append, *shown])
            with agreement(self._resumed_notes):
                if meta := self._commits.resume(steps):
                    self.step, self.stopped = meta["step"], meta["stopped"]
                    self._logged.means = {name: Mean(*mean) for name, mean in meta["means"].items()}
            failed.pop_all()

    def _begin_notes(self) -> dict[str, Any]:
        """Returns what several processes must have in common, for resuming not to hang."""
        latest = self._commits.latest
        return {"last checkpoint": latest, **structure_of(self._objects), **self._data_note()}

    def _resumed_notes(self) -> dict[str, Any]:
        """Returns what they must have in common when the first step begins."""
        return {"step": self.step, **values_of(self._objects), **self._data_note()}

    def _data_note(self) -> dict[str, Any]:
        state = self._feed.state()
        own = from_json(state.pop("own", None))
        return {"data": {**state, **(own if isinstance(own, dict) else {"state": own})}}

    @property
    def history(self) -> History:
        """What was logged."""
        return self._commits.history

    # -- what the loop calls

    def __iter__(self) -> Iterator[B]:
        before = self._loop and self._loop()
        if before is not None:  # an error has left it, and something still shows where
            before.close()
        loop = self._go_through()
        self._loop = weakref.ref(loop)
        with contextlib.closing(loop):
            for batch in loop:
                yield batch
                if self._loop() is not loop:
                    raise RuntimeError(
                        "another loop over this run has begun, which ends this one: a run is gone "
                        "through by one loop at a time, `for batch in run`"
                    )

    def _go_through(self) -> Generator[B, None, None]:
        self._commits.take_lock()
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            signals = stack.enter_context(StopSignals())
            stack.callback(self._outlets.close)
            self._outlets.start(self)
            if self._rolls_back and self._commits.last is None:
                self._save()
            is_called_off = False
            while not is_called_off and self.stopped is None and self.step != self.steps:
                try:
                    batch, count = self._feed.draw_for(self.step, self.steps, self._per_call)
                except StopIteration:
                    self._end_of_data()
                    break
                self._guard.begin_step()
                self.step += count
                if self._profile is not None:
                    self._profile.begin_step(self.step, count)
                self._in_step = count
                try:
                    yield batch
                except GeneratorExit:
                    signals.pass_over(self.step)
                    raise
                if not self._in_step:  # `close` was called
                    return
                self._in_step = 0
                is_called_off = signals.poll(self.step)
                self._end_step(is_called_off)
            if not is_called_off:
                self._miss_best()
        signals.leave()

    def log(self, values: Any, *, prefix: str = "") -> None:
        """Logs numbers of the present step.

        Without a prefix, a row gets their means since the row before, every `log_every` steps, at
        the last step, and where `every` says so. With a prefix there is a row in any case, and NaN
        is let pass.

        Args:
          values: numbers or scalar arrays by name, or a lone one, which is the "loss". With
            `steps_per_call` each has one element for each step.
          prefix: what their names begin with, such as "val/".

        Raises:
          RuntimeError: outside of the loop.
          TypeError: for what is no name.
          ValueError: for the names "step" and "time", which every row has.
        """
        if not self._in_step:
            raise RuntimeError("run.log belongs into the loop: `for batch in run: run.log(...)`")
        self._logged.add(self.step, self._in_step, prefix, values)
        self._is_shown |= bool(prefix)

    def every(self, steps: int) -> bool:
        """Says whether the present step is one of every so many, or the last.

        What is logged in such a step is shown.

        Raises:
          ValueError: if that is no multiple of `steps_per_call`.
        """
        check_multiple("run.every", steps, self._per_call)
        is_due = self.step % steps == 0 or self.step == self.steps
        self._is_shown |= is_due
        return is_due

    def stale(self, name: str, *, patience: int, mode: str, min_delta: float = 0.0) -> bool:
        """Says whether a number has not become better for a while; see `train.is_stale`.

        Args:
          name: what it is logged as, with its prefix.
          patience: how many values in a row may be no better than the best before them.
          mode: "max" or "min": which is better.
          min_delta: by how much a value must be better, to count.

        Raises:
          KeyError: if nothing of that name was logged.
          ValueError: for another mode, or a patience below 1.
        """
        self._settle()
        values = list(self.history[name].values())
        if name in self._logged.means:
            values.append(self._logged.means[name].value)
        if not values:
            known = [*self.history.names, *self._logged.means]
            raise KeyError(f"nothing was logged as {name!r}; there is {known}")
        return is_stale(values, patience=patience, mode=mode, min_delta=min_delta)

    def stop(self, reason: str) -> None:
        """Ends the loop after the present step; also in a later process the run is over."""
        self.stopped = reason

    def close(self) -> None:
        """Lets go of the folder; at the end of the loop that happens by itself.

        Within the loop it ends it, as `break` does, and saves nothing.
        """
        if self._profile is not None:
            self._profile.close()
        self._in_step = 0
        self._commits.close()

    # -- the end of a step

    def _end_step(self, is_interrupted: bool) -> None:
        if self._profile is not None:
            self._profile.end_step(self.step)
        self._outlets.tick(self.step)
        is_over = self.stopped is not None or self.step == self.steps
        is_shown = self._is_shown or is_over or self.step % self._log_every == 0
        is_saved = is_interrupted or is_over or self.step % self._save_every == 0
        if is_shown or is_saved or self._guard.looks_at_each_step:
            self._settle()
        if is_shown:
            is_saved |= self._show()
        if is_saved:
            self._save()

    def _settle(self) -> None:
        """Fetches what was logged, and judges it."""
        bad = self._logged.fetch()
        if bad is None and self._guard.looks_at_each_step and self._guard.is_bad_state():
            bad = self.step, "all that was logged is finite"
        if bad is None:
            self._guard.accept()
        else:
            self._guard.reject(*bad)

    def _show(self) -> bool:
        """Hands out a row; returns whether `best` is better in it than ever."""
        self._is_shown = False
        before = self.history[self._best].values() if self._best else ()
        row = self._logged.take()
        if row:
            self._outlets.send(self.step, row)
        new = row.get(self._best or "", math.nan)
        return not math.isnan(new) and all(not self._sign * (new - old) <= 0 for old in before)

    def _save(self) -> None:
        means = {name: list(mean) for name, mean in self._logged.means.items()}
        self._commits.save(self.step, means=means, stopped=self.stopped)

    def _miss_best(self) -> None:
        """Warns if nothing was ever the best."""
        if self.folder is not None and self._best is not None and not self.history[self._best]:
            warnings.warn(
                f"best={self._best!r} was never logged, and no checkpoint is the best: "
                f"there is {self.history.names}",
                stacklevel=4,
            )

    def _end_of_data(self) -> None:
        if self.steps is not None:
            warnings.warn(
                f"the data ended after {self.step} of {self.steps} steps: give data that can be "
                "gone through again, such as a list or a train.Loader, or fewer steps",
                stacklevel=4,
            )
        self._settle()
        self._show()
        self._save()
