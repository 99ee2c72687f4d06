"""What a run logged: rows of numbers by step, in memory and in a file that grows by lines."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from weft._core.errors import StructureError
from weft._saving.replacing import replacing
from weft.train.whole import whole

Row = dict[str, float]
_OWN = ("step", "time")


def check_name(name: str) -> None:
    """Raises ValueError for a name that each row has of its own."""
    if name in _OWN:
        raise ValueError(
            f"{name!r} cannot be logged: each row has a {name} of its own; give it another name"
        )


class History:
    """Rows of numbers by step, kept in a file of one line of JSON for each.

    A line that was cut off, as the last one may be after a power failure, is left out when the file
    is read. Numbers come back equal to the bit.

    Attributes:
      rows: pairs of a step and its numbers by name, in the order of the steps.

    Args:
      file: where the rows are kept; None for memory alone. What it holds is read.

    Raises:
      StructureError: if another line than the last one is no row.

    Example:
      >>> from weft import train
      >>> history = train.History()
      >>> history.append(10, {"loss": 2.0})
      >>> history.append(20, {"loss": 1.5, "val/loss": 1.75})
      >>> history["loss"]
      {10: 2.0, 20: 1.5}
    """

    def __init__(self, file: str | os.PathLike[str] | None = None):
        self.rows: list[tuple[int, Row]] = []
        self._file = None if file is None else Path(file)
        self._times: list[float] = []
        self._stream: IO[str] | None = None
        if self._file is not None and self._file.exists():
            self._read(self._file)

    def _read(self, file: Path) -> None:
        lines = file.read_bytes().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                step, when, row = _row(line)
            except ValueError:
                if number == len(lines):
                    break
                raise StructureError(
                    f"{file}, line {number}: expected a JSON object with step, time and numbers, "
                    f"found {line[:80]!r}: mend or delete the line"
                ) from None
            self.rows.append((step, row))
            self._times.append(when)

    def __getitem__(self, name: str) -> dict[int, float]:
        """Returns the values of one name by step; none, if it was never logged."""
        return {step: row[name] for step, row in self.rows if name in row}

    @property
    def names(self) -> list[str]:
        """All names, in the order in which they first came up."""
        return list(dict.fromkeys(name for _, row in self.rows for name in row))

    def append(self, step: int, row: Row) -> None:
        """Adds a row; it is in the file as soon as this returns.

        Args:
          step: not below that of the last row.
          row: its numbers.

        Raises:
          ValueError: for an earlier step, and for the names "step" and "time".
          OSError: if the file cannot be written; `sync` writes what is missing.
        """
        if self.rows and step < self.rows[-1][0]:
            raise ValueError(
                f"rows come in the order of their steps: found one of {step} after "
                f"{self.rows[-1][0]}; `history.cut({step})` forgets what is after it"
            )
        for name in row:
            check_name(name)
        self.rows.append((step, row))
        self._times.append(time.time())
        if self._file is not None:
            if self._stream is None:
                self._rewrite(self._file)
            else:
                self._write(self._stream, len(self.rows) - 1)

    def cut(self, step: int) -> None:
        """Forgets the rows after a step, such as those of a run that goes on from there."""
        self.rows = [row for row in self.rows if row[0] <= step]
        del self._times[len(self.rows) :]
        if self._file is not None and (self.rows or self._file.exists()):
            self._rewrite(self._file)

    def sync(self) -> None:
        """Makes sure that all rows are on disk, and not merely with the system."""
        if self._file is not None and self.rows:
            if self._stream is None:
                self._rewrite(self._file)
            else:
                os.fsync(self._stream.fileno())

    def leave_file(self) -> None:
        """Keeps the rows in memory alone from here on; the file stays as it is."""
        self.close()
        self._file = None

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()

    def _rewrite(self, file: Path) -> None:
        """Replaces the file as a whole."""
        self.close()
        with replacing(file) as part, part.open("w", encoding="utf-8") as stream:
            for i in range(len(self.rows)):
                self._line(stream, i)
        self._stream = file.open("a", encoding="utf-8")

    def _write(self, stream: IO[str], i: int) -> None:
        try:
            self._line(stream, i)
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self.close()  # half a line may be in the file: the next write makes it anew
            raise

    def _line(self, stream: IO[str], i: int) -> None:
        step, row = self.rows[i]
        stream.write(json.dumps({"step": step, "time": self._times[i], **row}) + "\n")


def _row(line: bytes) -> tuple[int, float, Row]:
    """Returns the step, time and numbers in a line, or raises ValueError."""
    record = json.loads(line)
    is_row = isinstance(record, dict) and record.keys() >= set(_OWN)
    if not is_row or not all(type(value) in (int, float) for value in record.values()):
        raise ValueError("no row")
    step, when = record.pop("step"), record.pop("time")
    if type(step) is not int:
        raise ValueError("no step")
    return step, when, record


def is_stale(
    values: Iterable[float] | Mapping[int, float],
    *,
    patience: int,
    mode: str,
    min_delta: float = 0.0,
) -> bool:
    """Says whether the last values brought nothing better than those before.

    Args:
      values: in the order in which they came, or by step as in a `History`; one that is not a
        number is no better than any.
      patience: how many values in a row may be no better than the best before them.
      mode: "min" or "max": which is better.
      min_delta: by how much a value must be better, to count.

    Returns:
      Whether that many have come since the best one.

    Raises:
      ValueError: for another mode, or a patience below 1.

    Example:
      >>> from weft import train
      >>> train.is_stale([3.0, 2.0, 2.5, 2.1], patience=2, mode="min")
      True
    """
    best, since = None, 0
    sign, patience = sign_of(mode), whole("patience", patience)
    for value in values.values() if isinstance(values, Mapping) else values:
        if value == value and (best is None or sign * (value - best) > min_delta):
            best, since = value, 0
        else:
            since += 1
    return since >= patience


def sign_of(mode: str) -> int:
    """Returns 1 where greater is better, -1 where less is."""
    signs = {"min": -1, "max": 1}
    if mode not in signs:
        raise ValueError(f"mode must be 'min' or 'max', found {mode!r}")
    return signs[mode]
