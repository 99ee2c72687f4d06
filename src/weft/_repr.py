"""Texts that show objects, Variables and States to a person.

Large models stay readable: arrays are shown by dtype and shape once they are longer than a few
numbers, static defaults that say nothing are kept short, and runs of equal items in a list are
shown once with their range.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
import types
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from weft._errors import StructureError
from weft._path import sorted_keys

_SMALL = 8
_WIDTH = 88
_SHORT = {"float": "f", "int": "i", "uint": "u", "complex": "c", "bfloat": "bf"}


class _Around(threading.local):
    """What is being written where the `repr` of another library's class is called."""

    ids: frozenset[int] = frozenset()


_around = _Around()


def represent(x: Any) -> str:
    """Writes an object, Variable or State as indented text."""
    return _write(x, _around.ids)


def count_text(number: int, size: int) -> str:
    """Writes a number of elements and bytes: `1,234 (4.9 KB)`."""
    text = f"{size} B"
    for unit in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size /= 1000  # type: ignore[assignment]
        text = f"{size:.1f} {unit}"
    return f"{number:,} ({text})"


def dtype_text(dtype: Any) -> str:
    """Writes a dtype as JAX does in types: `f32`, `bf16`, `key<fry>`."""
    name = str(dtype)
    match = re.match("[a-z]+", name)
    stem = match[0] if match else ""
    return _SHORT.get(stem, stem) + name[len(stem) :]


def array_text(x: Any) -> str:
    """Writes an array: its numbers if they are few, else dtype and shape."""
    shape = f"{dtype_text(x.dtype)}[{','.join(map(str, x.shape))}]"
    concrete = isinstance(x, (jax.Array, np.ndarray)) and not isinstance(x, Tracer)
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
    if not concrete or is_key or x.size > _SMALL:
        return shape
    if isinstance(x, jax.Array) and (x.is_deleted() or not x.is_fully_addressable):
        return shape
    return f"{shape} {np.array2string(np.asarray(x), separator=', ', precision=4)}".replace(
        "\n", ""
    )


def _write(x: Any, open_ids: frozenset[int]) -> str:
    from weft._graph.state import State
    from weft._module.containers import Dict, List
    from weft._module.pytree import Pytree
    from weft._variable import Variable

    if isinstance(x, Variable):
        metadata = "".join(f", {k}={_write(v, open_ids)}" for k, v in x._metadata.items())
        return f"{type(x).__name__}({_write(x._raw, open_ids)}{metadata})"
    if isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return array_text(x)
    if isinstance(x, (Pytree, State, list, tuple, dict)):
        if id(x) in open_ids:
            return f"<the {type(x).__name__} above>"
        open_ids |= {id(x)}
    if isinstance(x, State):
        items = [(f"{k!r}: ", _write(x[k], open_ids)) for k in sorted_keys(x._mapping)]
        return _join("State({", items, "})")
    if isinstance(x, List):
        return _join(f"{type(x).__name__}([", _runs(x, open_ids), "])")
    if isinstance(x, Pytree):
        pairs = x.items() if isinstance(x, Dict) else x._pytree_items()
        items = [(_key(k), _write(v, open_ids)) for k, v in pairs]
        return _join(f"{type(x).__name__}(", items, ")", _counts(x))
    if type(x) in (list, tuple):
        start, end = ("[", "]") if type(x) is list else ("(", ",)" if len(x) == 1 else ")")
        return _join(start, _runs(x, open_ids), end)
    if type(x) is dict:
        return _join("{", [(f"{k!r}: ", _write(v, open_ids)) for k, v in x.items()], "}")
    return _atom(x, open_ids)


def _key(key: Any) -> str:
    return f"{key}=" if isinstance(key, str) else f"{key!r}: "


def _atom(x: Any, open_ids: frozenset[int] = frozenset()) -> str:
    if isinstance(x, type):
        return x.__name__
    if isinstance(x, functools.partial):
        return f"partial({_atom(x.func)}, ...)"
    if isinstance(x, (types.FunctionType, types.BuiltinFunctionType)):
        return x.__name__
    before, _around.ids = _around.ids, open_ids
    try:
        text = repr(x)
    finally:
        _around.ids = before
    if text.startswith("<") and hasattr(x, "__name__"):
        return x.__name__
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def _runs(items: Any, open_ids: frozenset[int]) -> list[tuple[str, str]]:
    """Writes the items of a sequence, equal neighbours once with their range."""
    texts = [_write(item, open_ids) for item in items]
    found: list[tuple[str, str]] = []
    position = 0
    for text, group in itertools.groupby(texts):
        length = len(list(group))
        is_run = length > 1 and "\n" in text
        if is_run:
            found.append((f"({position}-{position + length - 1}) {length} x ", text))
        else:
            found.extend([("", text)] * length)
        position += length
    return found


def _join(start: str, items: list[tuple[str, str]], end: str, comment: str = "") -> str:
    if not items:
        return start + end
    one_line = start + ", ".join(key + text for key, text in items) + end
    if "\n" not in one_line and len(one_line) <= _WIDTH:
        return one_line
    body = "".join("  " + (key + text).replace("\n", "\n  ") + ",\n" for key, text in items)
    return f"{start}{'  # ' + comment if comment else ''}\n{body}{end.lstrip(',')}"


def _counts(x: Any) -> str:
    """Counts elements and bytes of an object by Variable type."""
    from weft._graph.walk import Flattener
    from weft._variable import Variable

    flattener = Flattener()
    try:
        flattener.flatten(x)
    except StructureError:  # what is wrong with an object must not keep it from being shown
        return ""
    totals: dict[str, list[int]] = {}
    for _, value, _ in flattener.entries:
        name = type(value).__name__ if isinstance(value, Variable) else "arrays"
        raw = value._raw if isinstance(value, Variable) else value
        for leaf in jax.tree.leaves(raw):
            if hasattr(leaf, "dtype"):
                total = totals.setdefault(name, [0, 0])
                total[0] += leaf.size
                total[1] += leaf.size * leaf.dtype.itemsize
    return ", ".join(f"{name}: {count_text(*total)}" for name, total in totals.items())
