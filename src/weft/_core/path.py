"""Paths: where in a model something is.

A *path* is a tuple of attribute names (str), positions (int) and mapping keys (any hashable). An
attribute of something that has items besides, such as a subclass of `dict`, has an `Own` key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax.tree_util as jtu

Key = Hashable
VALUE = jtu.GetAttrKey("value")
"""The very entry that stands in JAX's key paths for the value of a Variable."""
Path = tuple[Any, ...]
Pair = tuple[Path, Any]
ByPath = Mapping[Path, Any] | Iterable[Pair]


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """Key of an attribute where a plain name would be the key of an item."""

    name: str


def sort_key(key: Any) -> tuple:
    """Orders the keys of one level: numbers by value, then names, then the rest by repr."""
    if isinstance(key, str):
        return (1, key)
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        return (0, key)
    return (2, type(key).__name__, repr(key))


def path_sort_key(path: Path) -> tuple:
    return tuple(map(sort_key, path))


def sorted_keys(keys: Iterable[Any]) -> list[Any]:
    """Sorts the keys of one level; plain names, the common case, sort without a key function."""
    keys = list(keys)
    if all(type(key) is str for key in keys):
        keys.sort()
    else:
        keys.sort(key=sort_key)
    return keys


def format_path(path: Path, root: str = "") -> str:
    """Writes a path as code: `model.blocks[3].dropout.rate`."""
    text = root
    for key in path:
        name = key.name if type(key) is Own else key
        if isinstance(name, str) and name.isidentifier():
            text += f".{name}" if text else name
        else:
            text += f"[{key!r}]"
    return text or "the object itself"


def key_of_entry(entry: Any) -> Any:
    """Returns the plain key of an entry of a JAX key path."""
    match entry:
        case jtu.GetAttrKey(name):
            return name
        case jtu.SequenceKey(index):
            return index
        case jtu.DictKey(key) | jtu.FlattenedIndexKey(key):
            return key
    return entry
