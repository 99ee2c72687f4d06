"""Static values as text: JSON, in which functions and classes stand by their names.

Written for what outlives a process, and so without pickle: reading makes values of known kinds and
looks names up, and runs nothing of what it reads. A value is itself in JSON where JSON has it, and
else a list that begins with a tag. A class whose instances are to be made again by calling it says
what with: `__nnx_parts__` returns the arguments.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from weft._core.errors import StructureError
from weft._core.path import Path, format_path

# Where the public name of a function may be; what is in none of these is looked for at home.
_PUBLIC = ("weft", "jax.numpy", "jax.nn", "jax.lax", "jax.nn.initializers", "jax.random")
# What reading may import; all else must have been imported by the program itself.
_IMPORTED = frozenset({"weft", "jax", "numpy", "optax", "builtins"})


def to_text(value: Any, path: Path = ()) -> str:
    """Returns a static value as text.

    Args:
      value: the value.
      path: where it is, for errors.

    Raises:
      StructureError: naming the path of what cannot be written.
    """
    return json.dumps(_encode(value, path), separators=(",", ":"))


def from_text(text: str) -> Any:
    """Returns the value that a text stands for.

    Raises:
      StructureError: if it names what this process does not have.
    """
    return _decode(json.loads(text))


def _encode(x: Any, path: Path) -> Any:
    kind = type(x)
    if x is None or kind in (bool, int, str):
        return x
    for types, tag, write, _ in _RULES:
        if kind is types or (isinstance(types, tuple) and isinstance(x, types)):
            return [tag, *write(x, path)]
    if isinstance(x, tuple) and hasattr(kind, "_fields"):
        return ["fields", _name(kind, path), _pairs(zip(kind._fields, x, strict=True), path)]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        names = [field.name for field in dataclasses.fields(x)]
        if getattr(x, "__dict__", {}).keys() <= set(names):
            return ["fields", _name(kind, path), _pairs(((n, getattr(x, n)) for n in names), path)]
    parts = getattr(kind, "__nnx_parts__", None)
    if parts is not None:
        return ["made", _name(kind, path), _items(parts(x), path)]
    return ["name", *_name(x, path)]


def _pairs(items: Iterable[tuple[Any, Any]], path: Path) -> list[Any]:
    return [[_encode(k, path), _encode(v, (*path, k))] for k, v in items]


def _items(values: Iterable[Any], path: Path) -> list[Any]:
    return [_encode(value, (*path, i)) for i, value in enumerate(values)]


def _name(x: Any, path: Path) -> list[str]:
    """Returns the module and the name by which something is found again."""
    name = getattr(x, "__qualname__", None) or getattr(x, "__name__", None)
    if isinstance(name, str):
        for home in (*_PUBLIC, getattr(x, "__module__", None)):
            if home in sys.modules and _look_up(home, name) is x:
                return [home, name]
    raise StructureError(
        f"{format_path(path)} is {x!r}, which has no name to be found by in another process: make "
        "it a function or class of a module, or hand over the arrays alone, "
        "`nnx.state(model)`, and close over `nnx.graphdef(model)`"
    )


def _look_up(home: str, name: str) -> Any:
    found: Any = sys.modules[home]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _named(home: str, name: str) -> Any:
    if home not in sys.modules and home.partition(".")[0] in _IMPORTED:
        importlib.import_module(home)
    found = _look_up(home, name) if home in sys.modules else None
    if found is None:
        raise StructureError(f"what was written needs {home}.{name}: import {home} before reading")
    return found


def _decode(x: Any) -> Any:
    if not isinstance(x, list):
        return x
    tag, *parts = x
    if tag not in _READ:
        raise StructureError(f"cannot read a value of kind {tag!r}: a newer Weft wrote it")
    return _READ[tag](*parts)


def _read_pairs(pairs: list[Any]) -> list[tuple[Any, Any]]:
    return [(_decode(key), _decode(value)) for key, value in pairs]


def _read_fields(name: list[str], pairs: list[Any]) -> Any:
    kind, fields = _named(*name), dict(_read_pairs(pairs))
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return kind(*fields.values())
    # Of other classes some act when they are collected: a temporary file deletes what it names.
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise _not_made(*name)
    if not fields.keys() <= {field.name for field in dataclasses.fields(kind)}:
        raise _not_made(*name)
    new = object.__new__(kind)
    for key, value in fields.items():
        object.__setattr__(new, key, value)
    return new


def _read_made(name: list[str], parts: list[Any]) -> Any:
    kind = _named(*name)
    if not (isinstance(kind, type) and hasattr(kind, "__nnx_parts__")):
        raise _not_made(*name)
    return kind(*map(_decode, parts))


def _read_member(home: str, name: str, member: str) -> Any:
    kind = _named(home, name)
    if not isinstance(kind, enum.EnumMeta):
        raise _not_made(home, name)
    return kind[member]


def _not_made(home: str, name: str) -> StructureError:
    return StructureError(f"{home}.{name} is not made from what was written of it")


def _write_array(x: np.ndarray, path: Path) -> list[Any]:
    if x.dtype.hasobject:
        return _name(x, path)  # which says that it cannot be
    data = base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
    return [x.dtype.name, list(x.shape), data]


def _read_array(dtype: str, shape: list[int], data: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data), jnp.dtype(dtype)).reshape(shape).copy()


def _write_partial(x: functools.partial, path: Path) -> list[Any]:
    return [_encode(x.func, path), _items(x.args, path), _pairs(x.keywords.items(), path)]


def _read_partial(function: Any, args: list[Any], keywords: list[Any]) -> functools.partial:
    return functools.partial(_decode(function), *map(_decode, args), **dict(_read_pairs(keywords)))


# For each kind: its type (in a tuple where subclasses count), its tag, and how it is written and
# read. Types that are not among them are written by name, field by field, or refused.
_Rule = tuple[Any, str, Callable[[Any, Path], list[Any]], Callable[..., Any]]
_RULES: tuple[_Rule, ...] = (
    (float, "float", lambda x, path: [x.hex()], float.fromhex),
    (
        *(complex, "complex", lambda x, path: [x.real.hex(), x.imag.hex()]),
        lambda real, imag: complex(float.fromhex(real), float.fromhex(imag)),
    ),
    (bytes, "bytes", lambda x, path: [x.hex()], bytes.fromhex),
    (tuple, "tuple", _items, lambda *x: tuple(map(_decode, x))),
    (list, "list", _items, lambda *x: list(map(_decode, x))),
    (dict, "dict", lambda x, path: _pairs(x.items(), path), lambda *x: dict(_read_pairs([*x]))),
    (
        *(set, "set", lambda x, path: sorted(_items(x, path), key=json.dumps)),
        lambda *x: set(map(_decode, x)),
    ),
    (
        *(frozenset, "frozenset", lambda x, path: sorted(_items(x, path), key=json.dumps)),
        lambda *x: frozenset(map(_decode, x)),
    ),
    (type(...), "ellipsis", lambda x, path: [], lambda: ...),
    (
        *(slice, "slice", lambda x, path: _items((x.start, x.stop, x.step), path)),
        lambda *x: slice(*map(_decode, x)),
    ),
    (PartitionSpec, "spec", _items, lambda *x: PartitionSpec(*map(_decode, x))),
    ((np.dtype,), "dtype", lambda x, path: [x.name], jnp.dtype),
    (
        *((np.generic,), "scalar", lambda x, path: _write_array(np.asarray(x), path)),
        lambda *x: _read_array(*x)[()],
    ),
    ((np.ndarray,), "array", _write_array, _read_array),
    (
        *((enum.Enum,), "enum", lambda x, path: [*_name(type(x), path), x.name]),
        _read_member,
    ),
    (functools.partial, "partial", _write_partial, _read_partial),
)
_READ: dict[str, Callable[..., Any]] = {tag: read for _, tag, _, read in _RULES}
_READ |= {"name": _named, "fields": _read_fields, "made": _read_made}
