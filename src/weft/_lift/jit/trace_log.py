"""Logs of traces: how often a function was traced, and when that is too often."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from weft._core.errors import RetraceError
from weft._core.tracebacks import warn
from weft._lift.jit.retrace import Seen, explain

OnRetrace = str | Callable[[str], None] | None

_REMEMBERED = 16


class CacheInfo(NamedTuple):
    """How often a function was traced.

    Attributes:
      traces: number of traces of the user's function.
      hits: number of calls that needed none.
      reasons: why each trace happened.
    """

    traces: int
    hits: int
    reasons: tuple[str, ...]


class Log:
    """The traces of one function.

    Args:
      name: the function's name.
      max_traces: how many traces are allowed; None for any number.
      on_retrace: "warn" to warn beyond the setting's limit, "explain" to warn of every retrace,
        a function called with each reason, or None for silence.

    Raises:
      ValueError: if an option has another value.
    """

    def __init__(self, name: str, max_traces: int | None, on_retrace: OnRetrace):
        if not (on_retrace in ("warn", "explain", None) or callable(on_retrace)):
            raise ValueError(
                f"on_retrace must be 'warn', 'explain', a function or None, found {on_retrace!r}"
            )
        if max_traces is not None and max_traces < 1:
            raise ValueError(f"max_traces must be at least 1, or None, found {max_traces!r}")
        self._name = name
        self._max_traces = max_traces
        self._on_retrace = on_retrace
        self._seen: list[Seen] = []
        self._next_warning = 0
        self.reasons: list[str] = []

    def __reduce__(self) -> Any:  # what was traced stays in this process
        return (Log, (self._name, self._max_traces, self._on_retrace))

    def note(self, new: Seen, limit: int) -> None:
        """Notes a trace about to happen.

        Args:
          new: what it sees.
          limit: how many traces are allowed without a warning.

        Raises:
          RetraceError: if it is one too many.
        """
        reason, advice = explain(self._seen, new)
        number = len(self.reasons) + 1
        if self._max_traces is not None and number > self._max_traces:
            raise RetraceError(
                f"{self._name!r} would be traced again, with max_traces={self._max_traces}: "
                f"{reason}. {advice}, or allow more: `nnx.jit(f, max_traces={number})`"
            )
        self._seen = [*self._seen[1 - _REMEMBERED :], new]
        self.reasons.append(reason)
        _counts.note(f"{self._name}: {reason}")
        if number == 1 or self._on_retrace is None:
            return
        if callable(self._on_retrace):
            self._on_retrace(reason)
        elif self._on_retrace == "explain" or number > max(limit, self._next_warning):
            self._next_warning = 2 * number  # a function that is always traced says so less often
            warn(
                f"{self._name!r} is traced again (trace {number}): {reason}. {advice}, or silence "
                "this: `nnx.jit(f, on_retrace=None)`, `nnx.set_retrace_limit(N)`"
            )


class _Counts:
    """All traces of the process, for those who count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening: list[list[str]] = []

    def note(self, reason: str) -> None:
        with self._lock:
            for reasons in self._listening:
                reasons.append(reason)

    @contextlib.contextmanager
    def listen(self) -> Iterator[list[str]]:
        reasons: list[str] = []
        with self._lock:
            self._listening.append(reasons)
        try:
            yield reasons
        finally:
            with self._lock:
                self._listening = [other for other in self._listening if other is not reasons]


_counts = _Counts()


@contextlib.contextmanager
def assert_max_traces(number: int) -> Iterator[None]:
    """Raises at the end of a block if `nnx.jit` traced functions more often than a number.

    Args:
      number: how many traces are allowed, of all functions and threads together.

    Raises:
      RetraceError: listing why each trace happened.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> double = nnx.jit(lambda x: 2 * x)
      >>> with nnx.assert_max_traces(1):
      ...     for i in range(3):
      ...         y = double(jnp.float32(i))
    """
    with _counts.listen() as reasons:
        yield
    if len(reasons) > number:
        listed = "".join(f"\n  {reason}" for reason in reasons)
        traces = "trace" if number == 1 else "traces"
        raise RetraceError(f"expected at most {number} {traces}, found {len(reasons)}:{listed}")
