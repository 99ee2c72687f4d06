"""Where a run's numbers go: a CSV file, TensorBoard, a picture.

A sink is any `f(step, row)`, with a row of numbers by name. If it has `start(run)` it is called
before the first row, with what has `folder`, `step`, `steps` and `history`; `tick(step)` after each
step; `close()` at the end. What a run logged before it was interrupted is in `run.history`: from it
these sinks make their files anew, so that no step is there twice or missing.
"""

from __future__ import annotations

import contextlib
import csv
import os
import weakref
from pathlib import Path
from typing import Any

from weft._saving.replacing import replacing
from weft.train.history import History, Row, check_name


class _OfOneRun:
    """What notes the run that it is shown, of which there is one at a time.

    Args:
      given: where to write; None for a place in the run's folder.
    """

    def __init__(self, given: str | os.PathLike[str] | None):
        self._given = None if given is None else Path(given)
        self._place = self._given
        self._history: weakref.ref[History] | None = None

    def _begin(self, run: Any, name: str) -> Path:
        """Returns where to write what a run logs: as given, or by a name in its folder.

        Raises:
          ValueError: if another run is being shown, or the run has no folder.
        """
        kind = type(self).__name__
        other = self._history and self._history()
        if other is not None and other is not run.history:
            raise ValueError(
                f"this train.{kind} is shown another run, which has not ended: give each run one "
                f"of its own, `sinks=[train.{kind}()]`"
            )
        if self._given is None and run.folder is None:
            raise ValueError(
                f"a run without a folder gives train.{kind} none: write `train.{kind}({name!r})`"
            )
        self._history = weakref.ref(run.history)
        self._place = self._given or Path(run.folder) / name
        return self._place

    def _end(self) -> None:
        self._history = None


class CSV(_OfOneRun):
    """Writes the rows to a CSV file; each is there as soon as it is logged.

    A name that comes up later becomes one more column, and rows without it have an empty field.
    Numbers are written such that reading gives the same to the bit.

    Args:
      file: where to write; `metrics.csv` in the run's folder if None.

    Example:
      >>> import pathlib, tempfile
      >>> from weft import train
      >>> file = pathlib.Path(tempfile.mkdtemp(), "metrics.csv")
      >>> sink = train.CSV(file)
      >>> sink(1, {"loss": 0.5})
      >>> sink(2, {"loss": 0.25, "val/acc": 1.0})
      >>> file.read_text().split()
      ['step,loss,val/acc', '1,0.5,', '2,0.25,1.0']
      >>> sink.close()
    """

    def __init__(self, file: str | os.PathLike[str] | None = None):
        super().__init__(file)
        self._rows = History()
        self._stream: Any = None
        self._writer: Any = None

    def start(self, run: Any) -> None:
        """Makes the file anew from what the run logged before."""
        file = self._begin(run, "metrics.csv")
        self._rows.rows = list(run.history.rows)
        if self._rows.rows:
            self._rewrite(file)

    def __call__(self, step: int, row: Row) -> None:
        """Writes a row."""
        if self._place is None:
            raise ValueError("train.CSV needs a file outside of a run: `train.CSV('metrics.csv')`")
        if "step" in row:
            check_name("step")
        self._rows.rows.append((step, row))
        if self._writer is None or not row.keys() <= set(self._writer.fieldnames):
            self._rewrite(self._place)
            return
        try:
            self._writer.writerow({"step": step, **row})
            self._stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self._close_file()  # half a line may be there: the next row makes the file anew
            raise

    def close(self) -> None:
        """Closes the file."""
        self._end()
        self._close_file()

    def _close_file(self) -> None:
        if self._stream is not None:
            stream, self._stream, self._writer = self._stream, None, None
            stream.close()

    def _rewrite(self, file: Path) -> None:
        self._close_file()
        names = ["step", *self._rows.names]
        with replacing(file) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in self._rows.rows)
        self._stream = file.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._stream, names, lineterminator="\n")


class TensorBoard(_OfOneRun):
    """Writes event files for TensorBoard, through tensorboardX (`pip install weft[tensorboard]`).

    Args:
      folder: where to write; `tensorboard` in the run's folder if None. Event files there whose
        names end in `.weft` are replaced.

    Example:
      >>> import os, tempfile
      >>> from weft import train
      >>> folder = tempfile.mkdtemp()
      >>> sink = train.TensorBoard(folder)
      >>> sink(1, {"loss": 0.5})
      >>> sink.close()
      >>> [name.startswith("events.") for name in os.listdir(folder)]
      [True]
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        super().__init__(folder)
        self._writer: Any = None

    def start(self, run: Any) -> None:
        """Makes the files anew from what the run logged before."""
        self._begin(run, "tensorboard")
        self._open()
        for step, row in run.history.rows:
            self(step, row)

    def _open(self) -> Any:
        if self._place is None:
            raise ValueError(
                "train.TensorBoard needs a folder outside of a run: `train.TensorBoard('logs')`"
            )
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "train.TensorBoard needs tensorboardX: `pip install weft[tensorboard]`"
            ) from error
        for file in self._place.glob("events.*.weft"):
            file.unlink()
        self._writer = SummaryWriter(str(self._place), filename_suffix=".weft")
        return self._writer

    def __call__(self, step: int, row: Row) -> None:
        """Writes a row."""
        writer = self._writer or self._open()
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is waiting, and closes the files."""
        self._end()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


class Plot(_OfOneRun):
    """Draws learning curves into a PNG, through matplotlib (`pip install weft[plot]`).

    There is one diagram for each last part of a name, with a curve for each first part: "loss" and
    "val/loss" are in one. It is drawn at the end, and before at most every so many seconds.

    Args:
      file: where to draw; `curves.png` in the run's folder if None.
      seconds: how often to draw.

    Example:
      >>> import pathlib, tempfile
      >>> from weft import train
      >>> file = pathlib.Path(tempfile.mkdtemp(), "curves.png")
      >>> sink = train.Plot(file)
      >>> sink(1, {"loss": 0.5, "val/loss": 0.75})
      >>> sink(2, {"loss": 0.25, "val/loss": 0.5})
      >>> sink.close()
      >>> file.read_bytes()[1:4]
      b'PNG'
    """

    def __init__(self, file: str | os.PathLike[str] | None = None, *, seconds: float = 60.0):
        super().__init__(file)
        self._seconds, self._due = seconds, 0.0
        self._rows = History()

    def start(self, run: Any) -> None:
        """Takes over what the run logged before."""
        _figure_tools()
        self._begin(run, "curves.png")
        self._rows.rows = list(run.history.rows)

    def __call__(self, step: int, row: Row) -> None:
        """Takes a row, and draws if it is time."""
        import time

        self._rows.rows.append((step, row))
        if not self._due:
            self._due = time.monotonic() + self._seconds
        elif time.monotonic() >= self._due:
            self._draw()
            self._due = time.monotonic() + self._seconds

    def close(self) -> None:
        """Draws."""
        self._end()
        if self._rows.rows:
            self._draw()

    def _draw(self) -> None:
        if self._place is None:
            raise ValueError("train.Plot needs a file outside of a run: `train.Plot('curves.png')`")
        figure_class, canvas_class = _figure_tools()
        kinds: dict[str, list[str]] = {}
        for name in self._rows.names:
            kinds.setdefault(name.rpartition("/")[2], []).append(name)
        figure = figure_class(figsize=(5 * len(kinds), 4), dpi=110, layout="tight")
        canvas_class(figure)
        for axes, (kind, names) in zip(
            figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True
        ):
            for name in names:
                values = self._rows[name]
                label = name.rpartition("/")[0] or "train"
                axes.plot(
                    list(values),
                    list(values.values()),
                    label=label,
                    marker="." * (len(values) < 30),
                )
            axes.set(title=kind, xlabel="step")
            if "loss" in kind and all(
                value > 0 for name in names for value in self._rows[name].values()
            ):
                axes.set_yscale("log")
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(self._place)


def _figure_tools() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("train.Plot needs matplotlib: `pip install weft[plot]`") from error
    return Figure, FigureCanvasAgg
