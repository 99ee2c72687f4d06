"""Why a function was traced again: the difference to the nearest earlier trace, by path.

A *trace* is what one trace of a user's function saw: the structure of the arguments and the avals
of their arrays.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from weft._errors import RetraceError
from weft._graph.records import NodeDef, Record, Ref, ValueDef, VariableDef, children_of
from weft._path import Path, format_path
from weft._static import Static

_SHOWN = 8
_REMEMBERED = 16


class Fact(NamedTuple):
    """What one trace saw at one path: what decides whether it is the same, and how to show it."""

    value: Any
    text: str


TraceSeen = dict[Path, Fact]
_ABSENT = Fact(None, "absent")


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


_TYPE, _METADATA, _EXTRA = "<type>", "<metadata>", "<order and marks>"
_ARGUMENTS = ("arguments",)


def see(
    records: Iterable[tuple[Path, Record]], how: Any, paths: list[Path], avals: list[Any]
) -> TraceSeen:
    """Describes the arguments of a trace.

    Args:
      records: path and record of each object, array and static argument.
      how: the structure around them.
      paths: the path of each entry.
      avals: the types of the arrays of each entry, in order.
    """
    facts: TraceSeen = {}

    def describe(record: Record, path: Path) -> None:
        match record:
            case Static():
                facts[path] = Fact(record, f"{_short(record.value)} (static)")
            case NodeDef():
                facts[(*path, _TYPE)] = Fact(record.type, record.type.__name__)
                note_extra(path, _EXTRA, record.extra)
            case VariableDef():
                facts[(*path, _TYPE)] = Fact(record.type, record.type.__name__)
                note_extra(path, _METADATA, record.metadata)
            case ValueDef():
                name = getattr(record.how, "__name__", None) or _short(record.how)
                facts[(*path, _TYPE)] = Fact(record.how, name)
            case Ref():
                facts[path] = Fact(record, f"shared reference {record.index}")
        for key, child in children_of(record):
            describe(child, (*path, key))

    def note_extra(path: Path, name: str, extra: Static) -> None:
        if extra.value:
            facts[(*path, name)] = Fact(extra, _short(extra.value))

    for path, record in records:
        describe(record, path)
    for path, types in zip(paths, avals, strict=True):
        facts[path] = Fact(types, ", ".join(map(_aval_text, types)))
    facts[_ARGUMENTS] = Fact(how, _short(how))
    return facts


def _aval_text(aval: Any) -> str:
    text = aval.str_short(short_dtypes=True)
    spec = getattr(getattr(aval, "sharding", None), "spec", None)
    weak = " (weak type)" if getattr(aval, "weak_type", False) else ""
    is_explicit = "@" not in text and bool(spec) and any(spec)
    return f"{text}{weak}" + (f" sharded {spec}" if is_explicit else "")


def _short(value: Any) -> str:
    try:
        text = getattr(value, "__qualname__", None) or repr(value)
    except Exception:  # a report must not fail because of a repr that does
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."


def differences(before: TraceSeen, after: TraceSeen) -> list[str]:
    """Lists the paths at which two traces saw different things, and both sides."""
    found = []
    for path in [*before, *(path for path in after if path not in before)]:
        old, new = before.get(path, _ABSENT), after.get(path, _ABSENT)
        # Only what is of one type is compared: a treedef refuses to be compared with None.
        same = type(old.value) is type(new.value) and old.value == new.value
        if same or (path == _ARGUMENTS and found):
            continue
        *inside, last = path
        suffix = f" ({last[1:-1]})" if last in (_METADATA, _EXTRA) else ""
        where = format_path(tuple(inside) if last in (_TYPE, _METADATA, _EXTRA) else path)
        other = f"another {new.text}" if old.text == new.text else new.text
        found.append(f"{where}{suffix}: {old.text} -> {other}")
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
        self._seen = [*self._seen[1 - _REMEMBERED :], new]
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
