"""Outcomes: what comes out of a program besides the Variables that were donated to it."""

from __future__ import annotations

import dataclasses
from typing import Any

from weft._graph.snapshot import Snapshot, snapshot_of
from weft._lift.jit.spec import Exit


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What comes out of a program besides donated Variables.

    Attributes:
      exit: the exit; its `written` lacks the donated Variables.
      treedef: of what the function returns, if these are arrays only.
      is_eager: whether nothing was compiled, so that arrays may come out that went in.
      may_be_whole: whether JAX may put together what the function returns.
      snapshot: of the static values that come out, None if none of them can change in place.
      is_plain: whether nothing but single arrays in Variables is written back.
      is_whole: whether nothing but what the function returns comes out of a compiled program.
    """

    exit: Exit
    treedef: Any
    is_eager: bool
    may_be_whole: bool
    snapshot: Snapshot | None = dataclasses.field(init=False, compare=False)
    is_plain: bool = dataclasses.field(init=False)
    is_whole: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        exit = self.exit
        object.__setattr__(self, "snapshot", snapshot_of(exit.watched))
        singles = all(w.treedef is None and w.metadata is None for w in exit.written)
        is_plain = self.treedef is not None and not exit.changed and singles
        object.__setattr__(self, "is_plain", is_plain)
        is_whole = is_plain and not exit.written and not self.is_eager and self.may_be_whole
        object.__setattr__(self, "is_whole", is_whole)


def find_outcome(outcomes: list[Outcome], out: Any) -> Outcome | None:
    """Returns which of a program's outcomes came out, None if it is whole."""
    is_whole = not isinstance(out, tuple) or len(out) == 2
    return None if is_whole else outcomes[len(out[-1])]
