"""Iterations: which one of a loop runs, for those who look on while its body is traced.

The body of a loop is traced once for all iterations, so a number in it is an array. `scan` makes
that array only where somebody asked for it, around the call.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

order = itertools.count()
"""Numbers what is traced, for those who look on."""


class Iteration(NamedTuple):
    """One loop whose body runs.

    Attributes:
      entered: when the body was traced; see `order`.
      number: a traced integer: the index of the slice.
      is_reversed: whether the last slice comes first.
      objects: the objects of which an iteration has a slice.
    """

    entered: int
    number: Any
    is_reversed: bool
    objects: list[Any]


class _State(threading.local):
    """What is asked for in a thread, and the loops around, the outermost first."""

    def __init__(self) -> None:
        self.are_wanted = False
        self.running: tuple[Iteration, ...] = ()


state = _State()


@contextlib.contextmanager
def wanted() -> Iterator[None]:
    """Asks for numbers in loops that are traced during the block."""
    before, state.are_wanted = state.are_wanted, True
    try:
        yield
    finally:
        state.are_wanted = before


@contextlib.contextmanager
def running(iteration: Iteration) -> Iterator[None]:
    """Notes a loop while its body runs."""
    before, state.running = state.running, (*state.running, iteration)
    try:
        yield
    finally:
        state.running = before
