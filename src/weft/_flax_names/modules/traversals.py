"""Nested mappings as flat ones, and back.

A *path* is the tuple of the keys that lead to a value. An *empty node* is a mapping without items,
which a flat mapping can only name by a marker, `empty_node`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from weft._core.path import format_path

IsLeafCallable = Callable[[tuple[Any, ...], Mapping[Any, Any]], bool]


class EmptyNode(enum.Enum):
    """Type of `empty_node`, which stands for a mapping without entries.

    Example:
      >>> import weft as nnx
      >>> nnx.traversals.flatten_mapping({"a": {}}, keep_empty_nodes=True)
      {('a',): <empty node>}
    """

    EMPTY = enum.auto()

    def __repr__(self) -> str:
        return "<empty node>"


empty_node: Final[Literal[EmptyNode.EMPTY]] = EmptyNode.EMPTY


def flatten_mapping(
    xs: Mapping[Any, Any],
    /,
    *,
    keep_empty_nodes: bool = False,
    is_leaf: IsLeafCallable | None = None,
    sep: str | None = None,
) -> dict[Any, Any]:
    """Turns a nested mapping into a flat dict from paths to values.

    Args:
      xs: the mapping, such as a dict or a State.
      keep_empty_nodes: whether empty mappings appear, as `empty_node`; else they are left out.
      is_leaf: `(path, mapping) -> bool` says which mappings are values.
      sep: if given, paths are strings, keys joined by it.

    Raises:
      TypeError: if `xs` is no mapping, or with `sep` a key is no string.

    Example:
      >>> import weft as nnx
      >>> nnx.traversals.flatten_mapping({"a": {"b": 1, "c": {}}})
      {('a', 'b'): 1}
    """
    pairs = _iter_flat(_checked(xs), (), is_leaf, keep_empty_nodes)
    return {path if sep is None else _joined(path, sep): value for path, value in pairs}


def flatten_to_sequence(
    xs: Mapping[Any, Any], /, *, is_leaf: IsLeafCallable | None = None
) -> list[tuple[tuple[Any, ...], Any]]:
    """Turns a nested mapping into a list of (path, value) pairs.

    Args:
      xs: the mapping.
      is_leaf: as for `flatten_mapping`.

    Example:
      >>> import weft as nnx
      >>> nnx.traversals.flatten_to_sequence({"a": {"b": 1}, 2: 3})
      [(('a', 'b'), 1), ((2,), 3)]
    """
    return list(_iter_flat(_checked(xs), (), is_leaf, False))


def unflatten_mapping(
    xs: Mapping[Any, Any] | Iterable[tuple[Any, Any]], /, *, sep: str | None = None
) -> dict[Any, Any]:
    """Turns a flat mapping from paths, or (path, value) pairs, into a nested dict.

    Args:
      xs: the flat mapping; `empty_node` stands for an empty dict.
      sep: what separates the keys, if paths are strings.

    Raises:
      ValueError: if one path goes through the value of another, or is empty.

    Example:
      >>> import weft as nnx
      >>> nnx.traversals.unflatten_mapping({"a/b": 1}, sep="/")
      {'a': {'b': 1}}
    """
    nested: dict[Any, Any] = {}
    made = {id(nested)}
    for key, value in xs.items() if isinstance(xs, Mapping) else xs:
        path: Any = key if sep is None else tuple(key.split(sep))  # type: ignore[union-attr]
        level = nested
        if not path:
            if value is empty_node:
                continue
            raise ValueError(f"the empty path has the value {value!r}: a value needs a key")
        for part in path[:-1]:
            level = level.setdefault(part, {})
            made.add(id(level))
            if not isinstance(level, dict):
                raise ValueError(f"{format_path(tuple(path))} goes through the value {level!r}")
        if id(level.get(path[-1])) in made:
            raise ValueError(f"{format_path(tuple(path))} has a value, and so have paths below it")
        level[path[-1]] = {} if value is empty_node else value
    return nested


def _checked(xs: Any) -> Mapping[Any, Any]:
    if not isinstance(xs, Mapping):
        raise TypeError(f"expected a mapping, such as a dict or a State, found {xs!r}")
    return xs


def _iter_flat(
    value: Any, path: tuple[Any, ...], is_leaf: IsLeafCallable | None, keep_empty: bool
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(value, Mapping) or (is_leaf is not None and is_leaf(path, value)):
        yield path, value
        return
    if not value and keep_empty and path:
        yield path, empty_node
    for key, child in value.items():
        yield from _iter_flat(child, (*path, key), is_leaf, keep_empty)


def _joined(path: tuple[Any, ...], sep: str) -> str:
    if not all(isinstance(key, str) for key in path):
        raise TypeError(
            f"the path {path!r} has keys that are no strings, which cannot be told apart once "
            f"joined by {sep!r}: leave out `sep`"
        )
    return sep.join(path)
