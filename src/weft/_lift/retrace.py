"""Why a function was traced again: the difference to the nearest earlier trace, by path.

A *trace* is what one trace of a user's function saw: the structure of the arguments and the avals
of their arrays.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from weft._errors import RetraceError
from weft._graph.records import ArrayDef, NodeDef, Record, ValueDef, VariableDef, children_of
from weft._path import Path, format_path
from weft._static import Static

_SHOWN = 8


class TraceSeen(NamedTuple):
    """What one trace saw, as texts by path."""

    facts: dict[Path, str]


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


def see(record: Record, paths: list[Path], avals: list[Any]) -> TraceSeen:
    """Describes the arguments of a trace.

    Args:
      record: their structure.
      paths: the path of each entry.
      avals: the types of the arrays of each entry, in order.
    """
    facts: dict[Path, str] = {}

    def describe(record: Record, path: Path) -> None:
        if isinstance(record, Static):
            facts[path] = f"{_short(record.value)} (static)"
        elif isinstance(record, (NodeDef, VariableDef)):
            facts[(*path, "<type>")] = record.type.__name__
            if isinstance(record, VariableDef) and record.metadata.value:
                facts[(*path, "<metadata>")] = _short(record.metadata.value)
            if isinstance(record, NodeDef):
                for key, child in children_of(record):
                    describe(child, (*path, key))
        elif isinstance(record, ValueDef):
            for key, child in children_of(record):
                describe(child, key if isinstance(key, tuple) and not path else (*path, key))
        elif not isinstance(record, ArrayDef):
            facts[path] = f"shared reference {record[0]}"

    describe(record, ())
    for path, types in zip(paths, avals, strict=True):
        facts[path] = ", ".join(t.str_short(short_dtypes=True) + "~" * t.weak_type for t in types)
    return TraceSeen(facts)


def _short(value: Any) -> str:
    text = getattr(value, "__qualname__", None) or repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def differences(before: TraceSeen, after: TraceSeen) -> list[str]:
    """Lists the paths at which two traces saw different things, and both sides."""
    found = []
    for path in [*before.facts, *(p for p in after.facts if p not in before.facts)]:
        old, new = before.facts.get(path, "absent"), after.facts.get(path, "absent")
        if old != new:
            where = [key for key in path if key not in ("<type>", "<metadata>")]
            suffix = " (metadata)" if path[-1:] == ("<metadata>",) else ""
            found.append(f"{format_path(tuple(where))}{suffix}: {old} -> {new}")
    return found


def explain(seen: list[TraceSeen], new: TraceSeen) -> str:
    """Says why a trace happened, given all earlier ones."""
    if not seen:
        return "first trace"
    nearest = min((differences(old, new) for old in seen), key=len)
    if not nearest:
        return "same arguments: a JAX setting, the mesh or the donation of arrays changed"
    more = f"; and {len(nearest) - _SHOWN} more" if len(nearest) > _SHOWN else ""
    return "; ".join(nearest[:_SHOWN]) + more


_ADVICE = (
    "Pad to a fixed shape, or hold what changes in a Variable. Change the limit with "
    "`nnx.jit(f, max_traces=N)` or `nnx.set_retrace_limit(N)`"
)


class Log:
    """The traces of one function.

    Args:
      name: the function's name.
      max_traces: how many traces are allowed; None for any number.
      on_retrace: "warn" to warn beyond the setting's limit, "explain" to warn of every retrace,
        a function called with each reason, or None for silence.
    """

    def __init__(self, name: str, max_traces: int | None, on_retrace: Any):
        if not (on_retrace in ("warn", "explain", None) or callable(on_retrace)):
            raise ValueError(
                f"on_retrace must be 'warn', 'explain', a function or None, found {on_retrace!r}"
            )
        self._name = name
        self._max_traces = max_traces
        self._on_retrace = on_retrace
        self._seen: list[TraceSeen] = []
        self._next_warning = 0
        self.reasons: list[str] = []

    def note(self, new: TraceSeen, limit: int) -> None:
        """Notes a trace about to happen.

        Raises:
          RetraceError: if it is one too many.
        """
        reason = explain(self._seen, new)
        number = len(self.reasons) + 1
        if self._max_traces is not None and number > self._max_traces:
            raise RetraceError(
                f"{self._name!r} would be traced {number} times, max_traces={self._max_traces}: "
                f"{reason}. {_ADVICE}"
            )
        self._seen.append(new)
        self.reasons.append(reason)
        _total.count(f"{self._name}: {reason}")
        if number == 1 or self._on_retrace is None:
            return
        if callable(self._on_retrace):
            self._on_retrace(reason)
        elif self._on_retrace == "explain" or number > max(limit, self._next_warning):
            self._next_warning = 2 * number  # a function that is always traced says so less often
            warnings.warn(
                f"{self._name!r} is traced for the {number}th time: {reason}. {_ADVICE}",
                UserWarning,
                stacklevel=2,
            )


class _Total:
    """All traces of the process, for those who count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reasons: list[list[str]] = []

    def count(self, reason: str) -> None:
        with self._lock:
            for listener in self.reasons:
                listener.append(reason)


_total = _Total()


@contextlib.contextmanager
def assert_max_traces(number: int) -> Iterator[None]:
    """Raises at the end of a block if `nnx.jit` traced functions more often than a number.

    Args:
      number: how many traces are allowed, of all functions together.

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
    reasons: list[str] = []
    _total.reasons.append(reasons)
    try:
        yield
    finally:
        _total.reasons.remove(reasons)
    if len(reasons) > number:
        listed = "\n".join(f"  {reason}" for reason in reasons)
        raise RetraceError(f"expected at most {number} traces, found {len(reasons)}:\n{listed}")


OnRetrace = str | Callable[[str], None] | None
