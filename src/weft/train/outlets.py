"""Calls a run's sinks, such that one that fails does not stop the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from weft.train.history import Row


class Sink(Protocol):
    """What a run's numbers are handed to; where it has `start`, `tick`, `close` they are called."""

    def __call__(self, step: int, row: Row, /) -> object: ...


class Outlets:
    """The sinks of a run. One that fails warns once, and is called again the next time.

    Args:
      sinks: any `f(step, row)`.

    Raises:
      TypeError: if one cannot be called.
    """

    def __init__(self, sinks: Iterable[Sink]):
        self._sinks = list(sinks)
        for sink in self._sinks:
            if not callable(sink) or isinstance(sink, type):
                raise TypeError(
                    f"a sink is any f(step, row), such as `train.CSV()`; found {sink!r}"
                )
        self._have_failed: set[int] = set()
        self._ticks = self._methods("tick")

    def _methods(self, name: str) -> list[tuple[Any, Callable[..., Any]]]:
        found = ((sink, getattr(sink, name, None)) for sink in self._sinks)
        return [(sink, method) for sink, method in found if callable(method)]

    def start(self, run: Any) -> None:
        """Shows them the run. What is wrong with how a sink was made is an error here."""
        for sink, method in self._methods("start"):
            try:
                method(run)
            except OSError as error:
                self._warn(sink, error)

    def tick(self, step: int) -> None:
        """Tells them of a step."""
        for sink, method in self._ticks:
            self._call(sink, method, step)

    def send(self, step: int, row: Row) -> None:
        """Hands them a row."""
        for sink in self._sinks:
            self._call(sink, sink, step, dict(row))

    def close(self) -> None:
        """Closes them."""
        for sink, method in self._methods("close"):
            self._call(sink, method)

    def _call(self, sink: Any, method: Callable[..., Any], *arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:  # whatever it is: hours of training are worth more
            self._warn(sink, error)

    def _warn(self, sink: Any, error: Exception) -> None:
        if id(sink) not in self._have_failed:
            self._have_failed.add(id(sink))
            warnings.warn(
                f"the sink {getattr(sink, '__qualname__', type(sink).__name__)} failed, and the "
                f"run goes on without it: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
