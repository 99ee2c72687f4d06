"""Texts that show objects, Variables and States to a person.

A class says what it shows: its `__nnx_repr__` yields an `Object`, and an `Attr` for each part.
Here it is laid out. Large models stay readable: settings of Weft's layers that are what the
constructor makes them by default are left out, runs of equal items in a list are shown once with
their range, and a large object that is met again is only named. What is laid out is a *block*, or
a text where one line is enough.
"""

from __future__ import annotations

import functools
import itertools
import threading
import types
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import numpy as np

from weft._core.path import format_path
from weft._core.text import array_text

_WIDTH = 88
_LARGE = 10
"""How many lines an object may have and still be written again."""


class Object(NamedTuple):
    """How something is shown: the name of its type, and what stands around and in its parts.

    Attributes:
      type: the type or its name.
      start: stands before the parts.
      end: stands after them.
      kv_sep: stands between the key of a part and its value.
      indent: accepted for compatibility.
      empty_repr: stands for the parts where there are none.
      comment: follows the first of several lines.
      same_line: accepted for compatibility: what fits on one line is written on one.

    Example:
      >>> import weft as nnx
      >>> class Point(nnx.Pytree):
      ...     def __init__(self, x, y):
      ...         self.x, self.y = x, y
      ...     def __nnx_repr__(self):
      ...         yield nnx.reprlib.Object("P", start="<", end=">", kv_sep=": ")
      ...         yield nnx.reprlib.Attr("x", self.x)
      >>> Point(1, 2)
      P<x: 1>
    """

    type: str | type
    start: str = "("
    end: str = ")"
    kv_sep: str = "="
    indent: str = "  "
    empty_repr: str = ""
    comment: str = ""
    same_line: bool = False


class Attr(NamedTuple):
    """One part of what is shown; see `Object`.

    Attributes:
      key: its name; empty for an item of a list.
      value: what is shown behind it.
      start: stands before the key.
      end: stands behind the value.
      use_raw_value: whether the value is the text to show.
      use_raw_key: accepted for compatibility: keys are never changed.
      path_key: its key in paths, where that is not `key`.

    Example:
      >>> import weft as nnx
      >>> nnx.reprlib.Attr("x", 1).value
      1
    """

    key: str
    value: Any
    start: str = ""
    end: str = ""
    use_raw_value: bool = False
    use_raw_key: bool = False
    path_key: Any = None


class _Block:
    """What is written on several lines."""

    __slots__ = ("end", "items", "lines", "start")

    def __init__(self, start: str, items: tuple[tuple[str, Any], ...], end: str):
        self.start = start
        self.items = items
        self.end = end
        self.lines = 2 + sum(_lines_of(content) for _, content in items)


def _lines_of(content: Any) -> int:
    return content.lines if isinstance(content, _Block) else content.count("\n") + 1


class _Around(threading.local):
    """What is being written where the `repr` of another library's class is called."""

    ids: set[int] = set()  # noqa: RUF012  # never written to


_around = _Around()


def represent(obj: Any) -> str:
    """Writes an object, Variable or State as indented text.

    Example:
      >>> import weft as nnx
      >>> nnx.reprlib.get_repr(nnx.Param(1.0))
      'Param(1.0)'
    """
    return _lay_out(_Writer(obj).write())


def _count_nothing(root: Any) -> Callable[[Any], str]:
    return lambda x: ""


_counts_in: Callable[[Any], Callable[[Any], str]] = _count_nothing


def count_by(counts_in: Callable[[Any], Callable[[Any], str]]) -> None:
    """Sets what is asked about everything that is written on several lines.

    Args:
      counts_in: is given the root, and returns a function that says what is in one of its parts.
    """
    global _counts_in
    _counts_in = counts_in


# -- what is shown
def _describe(x: Any) -> tuple[Object, list[Attr]] | None:
    """Returns what is shown of something that has parts, None for anything else."""
    describe = getattr(type(x), "__nnx_repr__", None)
    if describe is not None:
        how, *parts = describe(x)
        return how, parts
    if type(x) in (list, tuple):
        end = "]" if type(x) is list else ",)" if len(x) == 1 else ")"
        return Object("", "[" if type(x) is list else "(", end), [Attr("", item) for item in x]
    if type(x) is dict:
        return Object("", "{", "}", ": "), [Attr(repr(k), v, path_key=k) for k, v in x.items()]
    if isinstance(x, tuple) and type(x).__repr__.__module__ == "collections":  # a named one
        return Object(type(x)), [Attr(k, getattr(x, k)) for k in x._fields]  # type: ignore[attr-defined]
    return None


def _atom(x: Any, open_ids: set[int]) -> str:
    if isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return array_text(x)
    if isinstance(x, type):
        return x.__name__
    if isinstance(x, functools.partial):
        return f"partial({_atom(x.func, open_ids)}, ...)"
    if isinstance(x, (types.FunctionType, types.BuiltinFunctionType)):
        return x.__name__
    before, _around.ids = _around.ids, open_ids
    try:
        text = repr(x)
    finally:
        _around.ids = before
    is_named = callable(x) or isinstance(x, types.ModuleType)
    if text.startswith("<") and is_named and hasattr(x, "__name__"):
        return x.__name__
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


# -- how it is laid out
Place = tuple["Place", Any] | None
"""Where something is: the place of what it is in, and its key there."""


def _path_of(place: Place) -> tuple[Any, ...]:
    keys = []
    while place is not None:
        place, key = place
        keys.append(key)
    return tuple(reversed(keys))


class _Writer:
    """Makes blocks, that of an object after those of its parts.

    All of it takes time in proportion to what is written, and no recursion: graphs may be deep.
    """

    def __init__(self, root: Any):
        self.root = root
        self.open = set(_around.ids)
        self.known: dict[int, tuple[Any, Place, Any]] = {}  # what was written, where, and how
        self.blocks: dict[Any, _Block] = {}
        self.counts: Callable[[Any], str] | None = None

    def write(self) -> Any:
        stack = [self._steps(self.root, None)]
        content: Any = None
        while stack:
            try:
                part, place = stack[-1].send(content)
            except StopIteration as stop:
                content = stop.value
                stack.pop()
            else:
                stack.append(self._steps(part, place))
                content = None
        return content

    def _steps(self, x: Any, place: Place) -> Generator[tuple[Any, Place], Any, Any]:
        """Yields each part of something and where it is, is sent its content, returns the whole."""
        if id(x) in self.open:
            return f"<the {type(x).__name__} above>"
        if id(x) in self.known:
            _, first, content = self.known[id(x)]
            if _lines_of(content) <= _LARGE:
                return content
            where = format_path(_path_of(first), type(self.root).__name__)
            return f"<the {type(x).__name__} at {where}>"
        described = _describe(x)
        if described is None:
            return _atom(x, self.open)
        how, parts = described
        self.open.add(id(x))
        items = []
        for i, part in enumerate(parts):
            label = part.start + (part.key + how.kv_sep if part.key else "")
            content = part.value
            if not part.use_raw_value:
                key = part.key if part.path_key is None else part.path_key
                content = yield content, (place, i if key == "" else key)
            if part.end and not isinstance(content, _Block):
                content += part.end
            items.append((label, content))
        self.open.discard(id(x))
        content = self._join(x, how, items)
        if isinstance(content, _Block):
            self.known[id(x)] = x, place, content
        return content

    def _join(self, x: Any, how: Object, items: list[tuple[str, Any]]) -> Any:
        name = how.type if isinstance(how.type, str) else how.type.__name__
        start = name + how.start
        if not items:
            return start + how.empty_repr + how.end
        if all(isinstance(content, str) and "\n" not in content for _, content in items):
            one_line = start + ", ".join(label + text for label, text in items) + how.end
            if len(one_line) <= _WIDTH:
                return one_line
        comment = how.comment
        if any(label for label, _ in items):
            if self.counts is None:
                self.counts = _counts_in(self.root)
            comment = comment or self.counts(x)
        else:
            items = _runs(items)
        start += f"  # {comment.removeprefix(' # ')}" if comment else ""
        key = (start, tuple(items), how.end)
        if key not in self.blocks:  # equal ones become one, so that comparing them is quick
            self.blocks[key] = _Block(start, tuple(items), how.end.lstrip(","))
        return self.blocks[key]


def _runs(items: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Writes equal neighbours in a sequence once, with their range."""
    found: list[tuple[str, Any]] = []
    position = 0
    for content, group in itertools.groupby(content for _, content in items):
        length = len(list(group))
        is_run = length > 1 and _lines_of(content) > 1
        if is_run:
            found.append((f"({position}-{position + length - 1}) {length} x ", content))
        else:
            found.extend([("", content)] * length)
        position += length
    return found


def _lay_out(content: Any) -> str:
    if isinstance(content, str):
        return content
    lines = [content.start]
    open_blocks = [(content, iter(content.items))]
    while open_blocks:
        indent = "  " * len(open_blocks)
        block, rest = open_blocks[-1]
        for label, part in rest:
            if isinstance(part, _Block):
                lines.append(indent + label + part.start)
                open_blocks.append((part, iter(part.items)))
                break
            lines.append(indent + label + part.replace("\n", f"\n{indent}") + ",")
        else:
            open_blocks.pop()
            lines.append(indent[2:] + block.end + ("," if open_blocks else ""))
    return "\n".join(lines)
