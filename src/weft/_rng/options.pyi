"""The options of what changes streams, for type checkers; nothing is here at run time."""

from typing import Required, TypedDict

from weft._core.filters import Filter
from weft._rng.seeds import Rules, Splits

class SplitOptions(TypedDict, total=False):
    """The options of `split_rngs`."""

    splits: Required[Splits]
    only: Filter
    squeeze: bool
    graph: bool | None
    graph_updates: bool | None

class ForkOptions(TypedDict, total=False):
    """The options of `fork_rngs`."""

    split: Rules
    graph: bool | None
    graph_updates: bool | None

class WithOptions(TypedDict, total=False):
    """The options of `with_rngs`."""

    split: Rules
    fork: Filter
    broadcast: Rules
    only: Filter
    graph: bool | None
    graph_updates: bool | None
