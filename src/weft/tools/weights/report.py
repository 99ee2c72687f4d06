"""Reports: what of a file goes where in a model, and everything that does not fit."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

MATCHED, IGNORED = "matched", "ignored"
MISSING, UNEXPECTED, MISFIT, WRONG = "missing", "unexpected", "mis-shaped", "wrong"
HEADERS = ("", "source", "target", "shape", "dtype", "")
LIMIT = 30
_SUGGESTED = 20  # for so many names others are looked for that are near: it takes time
_NUMBER = re.compile(r"(?<![\w-])\d+(?!\w)")


@dataclasses.dataclass(frozen=True)
class WeightRow:
    """One row of a report.

    Attributes:
      kind: "matched", "ignored", "missing", "unexpected", "mis-shaped" or "wrong".
      source: the names in the file, joined by commas.
      target: the paths in the model, likewise.
      shape: the shape in the file; of what is missing that in the model.
      dtype: the dtype, and what it becomes, if that is another one.
      note: how it is converted; or what does not fit, and what to do.

    Example:
      >>> import numpy as np
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
      >>> nnx.load_weights(model, {"weight": np.ones((3, 2), np.float32)}).rows[0]
      WeightRow(kind='matched', source='weight', target='kernel', shape='3, 2', dtype='float32',
        note='axes (1, 0)')
    """

    kind: str
    source: str
    target: str
    shape: str
    dtype: str
    note: str


class WeightReport:
    """What `nnx.load_weights` found: a table of rows, which `print` shows.

    Rows that differ in numbers only, as those of equal blocks, are shown as one.

    Attributes:
      rows: all rows.
      where: what the weights come from.

    Example:
      >>> import numpy as np
      >>> import weft as nnx
      >>> source = {"weight": np.ones((3, 2), np.float32), "bais": np.ones(3, np.float32)}
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> report = nnx.load_weights(model, source, dry_run=True)
      >>> report.fits, [row.target for row in report.matched], report.unexpected[0].source
      (False, ['kernel'], 'bais')
    """

    def __init__(self, where: str, rows: Iterable[WeightRow]):
        self.where = where
        self.rows = tuple(rows)

    def of_kind(self, *kinds: str) -> tuple[WeightRow, ...]:
        """Returns the rows of some kinds."""
        return tuple([row for row in self.rows if row.kind in kinds])

    @property
    def matched(self) -> tuple[WeightRow, ...]:
        """What goes from the file into the model."""
        return self.of_kind(MATCHED)

    @property
    def ignored(self) -> tuple[WeightRow, ...]:
        """What is in the file, and neither rules nor layers want."""
        return self.of_kind(IGNORED)

    @property
    def missing(self) -> tuple[WeightRow, ...]:
        """What is in the model, and not in the file."""
        return self.of_kind(MISSING)

    @property
    def unexpected(self) -> tuple[WeightRow, ...]:
        """What is in the file, and not in the model."""
        return self.of_kind(UNEXPECTED)

    @property
    def misshaped(self) -> tuple[WeightRow, ...]:
        """What is in both, and does not fit in shape or kind of dtype."""
        return self.of_kind(MISFIT)

    @property
    def wrong(self) -> tuple[WeightRow, ...]:
        """Rules that match nothing, arrays that lack others, weights that two arrays lead to."""
        return self.of_kind(WRONG)

    @property
    def fits(self) -> bool:
        """Whether everything in both is in the other."""
        return not self.of_kind(MISSING, UNEXPECTED, MISFIT, WRONG)

    def __str__(self) -> str:
        counts = ", ".join(
            f"{len(rows)} {kind}"
            for kind in (MATCHED, MISSING, UNEXPECTED, MISFIT, WRONG, IGNORED)
            if (rows := self.of_kind(kind))
        )
        return "\n".join([f"{self.where}: {counts or 'nothing'}", *table(self.rows)])

    __repr__ = __str__


def table(rows: Iterable[WeightRow]) -> list[str]:
    """Returns the lines of a table: faults first, what differs in numbers only as one."""
    kinds = (WRONG, MISFIT, MISSING, UNEXPECTED, MATCHED, IGNORED)
    cells = [
        dataclasses.astuple(row)
        for row in sorted(merged(rows), key=lambda row: kinds.index(row.kind))
    ]
    if not cells:
        return []
    cells.insert(0, HEADERS)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def merged(rows: Iterable[WeightRow]) -> Iterator[WeightRow]:
    """Yields rows, those that differ in the numbers of names and paths only as one."""
    groups: dict[tuple[str, ...], list[WeightRow]] = {}
    for row in rows:
        texts = (_NUMBER.sub("#", text) for text in (row.source, row.target, row.note))
        groups.setdefault((row.kind, *texts, row.shape, row.dtype), []).append(row)
    for group in groups.values():
        yield dataclasses.replace(
            group[0],
            source=_spanned([row.source for row in group]),
            target=_spanned([row.target for row in group]),
            note=_spanned([row.note for row in group]),
        )


def _spanned(texts: Sequence[str]) -> str:
    """Returns texts that differ in numbers as one, with the first and last of each number."""
    columns = zip(*[map(int, _NUMBER.findall(text)) for text in texts], strict=True)
    spans = iter([_span(sorted(set(column))) for column in columns])
    return _NUMBER.sub(lambda match: next(spans), texts[0])


def _span(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    low, high = numbers[0], numbers[-1]
    if high - low == len(numbers) - 1:
        return f"{{{low}..{high}}}"
    return f"{{{','.join(map(str, numbers))}}}"


def joined(names: Sequence[str]) -> str:
    """Returns several names as one text, what they have in common once: `mlp.{up, gate}.kernel`."""
    parts = [re.split(r"(?<=\.)|(?=\.)", name) for name in names]
    if len(parts) < 2 or len({len(keys) for keys in parts}) > 1:
        return ", ".join(names)
    columns = [list(dict.fromkeys(column)) for column in zip(*parts, strict=True)]
    if sum(len(column) > 1 for column in columns) != 1:
        return ", ".join(names)
    return "".join([c[0] if len(c) == 1 else f"{{{', '.join(c)}}}" for c in columns])


def faults(rows: Iterable[WeightRow]) -> str:
    """Returns what does not fit as the lines of an error."""
    lines = [
        f"  {row.kind}: "
        + " → ".join([x for x in (row.source, row.target) if x])
        + (f" {row.dtype}[{row.shape}]" if row.dtype else "")
        + (f": {row.note}" if row.note else "")
        for row in merged(rows)
    ]
    more = [f"  and {len(lines) - LIMIT} more"] if len(lines) > LIMIT else []
    return "\n".join(lines[:LIMIT] + more)


class Suggestions:
    """Finds names that are near others, for the first few that are asked for.

    Args:
      names: to choose from.
    """

    def __init__(self, names: Iterable[str]):
        self._names = list(names)
        self._left = _SUGGESTED

    def near(self, name: str) -> str:
        """Returns the names that are near one, as a question; empty if there are none."""
        self._left -= 1
        if self._left < 0:
            return ""
        near = difflib.get_close_matches(name, self._names, n=4, cutoff=0.6)
        # Those of other blocks say nothing more.
        unlike = {name: name}
        for x in near:
            unlike.setdefault(_NUMBER.sub("#", x), x)
        found = [x for x in unlike.values() if x != name][:2]
        return f"did you mean {' or '.join(map(repr, found))}?" if found else ""
