"""A progress bar: in a terminal or notebook one line that moves, elsewhere plain lines."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from weft.train.feed import length_of
from weft.train.whole import whole

T = TypeVar("T")

_NARROW = 40  # columns; on fewer a bar says nothing
_REDRAWN_EVERY = 0.1  # seconds
_LINE_EVERY = 10.0  # seconds, of plain lines without news


class Bar:
    """Shows steps, steps a second, the time that is left and the last numbers.

    In a terminal or notebook this is one line that moves (with rich: `pip install weft[progress]`),
    and a line of its own for each evaluation. In a file, with `NO_COLOR` in the environment or on
    fewer than 40 columns it is a plain line for each row of numbers. Where nobody reads any more,
    nothing is written.

    It is a sink of `train.Run`, and can be used alone: `start`, `tick`, calls, `close`.

    Args:
      stream: where to write; standard output if None.

    Example:
      >>> import types
      >>> from weft import train
      >>> bar = train.Bar()
      >>> bar.start(types.SimpleNamespace(step=0, steps=100))
      >>> bar(100, {"loss": 0.25})
      step 100/100  loss 0.25
    """

    def __init__(self, stream: TextIO | None = None):
        self._given = stream
        self._stream: TextIO | None = None
        self._live: Any = None
        self._task: Any = None
        self._pace = _Pace()
        self._steps: int | None = None
        self._shown = -1
        self._due = 0.0
        self._row: dict[str, float] = {}

    def start(self, run: Any) -> None:
        """Begins to show a run: what has `step`, where it is, and `steps`, or None, for all."""
        self._stream = self._given or sys.stdout
        self._steps = run.steps
        self._pace = _Pace()
        self._shown = run.step
        self._due = time.monotonic() + _LINE_EVERY
        with self._until_nobody_reads():
            if self._stream is not None and _can_move(self._stream):
                self._open_live(run.step)

    def tick(self, step: int) -> None:
        """Notes that a step is done; this is cheap."""
        now = time.monotonic()
        if not self._pace.marks:
            self._pace.note(step, now)  # from here on nothing is compiled
        if now >= self._due:
            self._pace.note(step, now)
            self._show(step, now)

    def __call__(self, step: int, row: dict[str, float]) -> None:
        """Shows the numbers of a step."""
        now = time.monotonic()
        self._pace.note(step, now)
        self._row |= row
        if self._live is None:
            self._row = row
        self._show(step, now)
        if self._live is not None and any("/" in name for name in row):
            with self._until_nobody_reads():
                self._live.console.print(self._text(step, row), highlight=False, markup=False)

    def close(self) -> None:
        """Ends the line that moves."""
        if self._live is not None:
            with self._until_nobody_reads():
                self._live.refresh()
                self._live.stop()
            self._live = None

    def _show(self, step: int, now: float) -> None:
        self._due = now + (_LINE_EVERY if self._live is None else _REDRAWN_EVERY)
        self._shown = step
        with self._until_nobody_reads():
            if self._live is not None:
                text = "  ".join([*_numbers(self._row), *self._pace.texts(step, self._steps)])
                self._live.update(self._task, completed=step, text=text)
                self._live.refresh()
            elif self._stream is not None:
                line = self._text(step, self._row)
                print("  ".join([line, *self._pace.texts(step, self._steps)]), file=self._stream)
                self._stream.flush()
                self._row = {}

    def _text(self, step: int, row: dict[str, float]) -> str:
        total = "" if self._steps is None else f"/{self._steps}"
        return "  ".join([f"step {step}{total}", *_numbers(row)])

    def _open_live(self, step: int) -> None:
        from rich import console, progress

        self._live = progress.Progress(
            progress.MofNCompleteColumn(),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.fields[text]}", markup=False),
            console=console.Console(file=self._stream),
            auto_refresh=False,
            expand=True,
        )
        self._task = self._live.add_task("", total=self._steps, completed=step, text="")
        self._live.start()

    @contextlib.contextmanager
    def _until_nobody_reads(self) -> Iterator[None]:
        """Lets nothing that goes wrong with the stream get out; then nothing is shown any more."""
        try:
            yield
        except (OSError, ValueError) as error:
            live, self._live, stream, self._stream = self._live, None, self._stream, None
            if live is not None:
                with contextlib.suppress(OSError, ValueError):
                    live.stop()
            if isinstance(error, BrokenPipeError) and stream is not None:
                # What is still in the stream's buffer would fail when Python ends.
                with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), stream.fileno())


class _Pace:
    """Steps a second, over the last few marks."""

    def __init__(self) -> None:
        self.marks: collections.deque[tuple[int, float]] = collections.deque(maxlen=30)

    def note(self, step: int, now: float) -> None:
        if not self.marks or step > self.marks[-1][0]:
            self.marks.append((step, now))

    def texts(self, step: int, steps: int | None) -> list[str]:
        if len(self.marks) < 2:
            return []
        (first, began), (last, now) = self.marks[0], self.marks[-1]
        rate = (last - first) / max(now - began, 1e-9)
        texts = [f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step"]
        if steps is not None and step < steps:
            seconds = round((steps - step) / rate)
            hours, minutes = divmod(seconds // 60, 60)
            texts.append(f"eta {hours}:{minutes:02}:{seconds % 60:02}")
        return texts


def _numbers(row: dict[str, float]) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in row.items()]


def _can_move(stream: TextIO) -> bool:
    """Says whether a line that moves may be shown."""
    if os.environ.get("NO_COLOR") or importlib.util.find_spec("rich") is None:
        return False
    from rich.console import Console

    console = Console(file=stream)
    if console.is_jupyter:
        return True
    return stream.isatty() and not console.is_dumb_terminal and console.width >= _NARROW


def bar(data: Iterable[T], steps: int | None = None) -> Iterator[T]:
    """Goes through an iterable and shows how far it is; the bar of `train.Run`, alone.

    Args:
      data: any iterable.
      steps: how many items to take; None for all.

    Yields:
      The items.

    Example:
      >>> from weft import train
      >>> sum(train.bar([1, 2, 3]))
      step 3/3 ...
      6
    """
    if steps is not None:
        steps = whole("steps", steps, 0, otherwise=", or None for all")
    else:
        steps = length_of(data)
    shown, done = Bar(), _Place(0, steps)
    shown.start(done)
    try:
        for item in itertools.islice(data, steps):
            yield item
            done.step += 1
            shown.tick(done.step)
    finally:
        shown(done.step, {})
        shown.close()


class _Place:
    def __init__(self, step: int, steps: int | None):
        self.step, self.steps = step, steps
