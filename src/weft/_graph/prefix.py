"""Prefixes: what a transform is told about the leaves of its arguments.

A *prefix* is a tree that stands beside the arguments and stops earlier: an axis, a sharding, a
yes or no for everything below. It descends with the walk. A `PrefixMapping` is a prefix that
chooses by filter when the walk reaches a Variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from weft._core.errors import PrefixError
from weft._core.filters import PathIn, filters_to_predicates
from weft._core.path import Path, format_path
from weft._graph.state import State, to_flat_state
from weft._object.pytree import Pytree
from weft._variable.variable import pure_value


class PrefixMapping:
    """Base of prefixes that choose by filter; subclasses implement `map_prefix`.

    Example:
      >>> import weft as nnx
      >>> axes = nnx.StateAxes({nnx.Param: 0, ...: None})
      >>> isinstance(axes, nnx.extract.PrefixMapping)
      True
      >>> axes.map_prefix(("kernel",), nnx.Param(1.0))
      0
    """

    def map_prefix(self, path: Path, variable: Any) -> Any:
        """Returns the prefix of one Variable.

        Args:
          path: its path below the outermost object.
          variable: the Variable, or an array that no Variable holds.
        """
        raise NotImplementedError

    def map_argument(self, x: Any) -> Any:
        """Returns the prefix of an array or Variable that is no part of an object."""
        return self.map_prefix((), x)

    def leaf_prefixes(self) -> Iterable[Any]:
        """Returns every prefix that `map_prefix` can return."""
        raise NotImplementedError


def create_path_filters(state: Any) -> dict[PathIn, Any]:
    """Turns a State of prefixes into filters: paths with equal prefixes share one.

    Example:
      >>> import weft as nnx
      >>> nnx.statelib.create_path_filters(nnx.State({"a": 0, "b": None, "c": 0}))
      {PathIn(('a',), ('c',)): 0, PathIn(('b',)): None}
    """
    grouped: dict[Any, list[Path]] = {}
    for path, value in to_flat_state(state):
        grouped.setdefault(pure_value(value), []).append(path)
    return {PathIn(*paths): value for value, paths in grouped.items()}


class FilteredPrefix(PrefixMapping):
    """Maps filters to prefixes; the first filter that matches decides. A State has them by path."""

    def __init__(self, mapping: Mapping[Any, Any] | Iterable[tuple[Any, Any]], /):
        if isinstance(mapping, State):
            mapping = create_path_filters(mapping)
        items = tuple(mapping.items() if isinstance(mapping, Mapping) else mapping)
        self._filters = tuple(filter for filter, _ in items)
        self._prefixes = tuple(prefix for _, prefix in items)
        self._predicates = filters_to_predicates(self._filters)

    @property
    def filters(self) -> tuple[Any, ...]:
        """The filters, in the order they are tried."""
        return self._filters

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Returns the pairs of filter and prefix."""
        return tuple(zip(self._filters, self._prefixes, strict=True))

    def __nnx_parts__(self) -> tuple[Any, ...]:
        """Returns the arguments that make it again, for it to be written as text."""
        return (self.items(),)

    def map_prefix(self, path: Path, variable: Any) -> Any:
        for predicate, prefix in zip(self._predicates, self._prefixes, strict=True):
            if predicate(path, variable):
                return prefix
        raise PrefixError(
            f"no filter of {self!r} matches {format_path(path)}, a {type(variable).__name__}: "
            f"add a last entry for the rest, `{type(self).__name__}({{..., ...: None}})`"
        )

    def leaf_prefixes(self) -> Iterable[Any]:
        return self._prefixes

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.items() == other.items()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self._filters, self._prefixes))

    def __repr__(self) -> str:
        inside = ", ".join(f"{_show(f)}: {_show(p)}" for f, p in self.items())
        return f"{type(self).__name__}({{{inside}}})"


def _show(x: Any) -> str:
    if x is ...:
        return "..."
    return x.__name__ if isinstance(x, type) else repr(x)


def is_leaf(prefix: Any) -> bool:
    """Returns whether a prefix holds for everything below it."""
    return type(prefix) not in (tuple, list, dict) and not isinstance(prefix, (Pytree, Mapping))


def distinct(*prefixes: Any) -> list[Any]:
    """Returns the different leaf prefixes of some prefix trees, in the order of first sight."""
    found: list[Any] = []
    for prefix in prefixes:
        _collect_distinct(prefix, found)
    return found


def _collect_distinct(prefix: Any, found: list[Any]) -> None:
    if isinstance(prefix, PrefixMapping):
        parts: Iterable[Any] = prefix.leaf_prefixes()
    elif isinstance(prefix, Pytree):  # its static attributes are no prefixes
        parts = jax.tree.leaves(prefix, is_leaf=lambda x: x is None)
    elif isinstance(prefix, Mapping):
        parts = prefix.values()
    elif type(prefix) in (tuple, list):
        parts = prefix
    else:
        if not any(_same(prefix, other) for other in found):
            found.append(prefix)
        return
    for part in parts:
        _collect_distinct(part, found)


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and a == b)


def position(prefix: Any, keys: list[Any]) -> int:
    """Returns where a leaf prefix stands among the distinct ones."""
    for i, key in enumerate(keys):
        if _same(prefix, key):
            return i
    raise PrefixError(f"{prefix!r} is not among the prefixes {keys!r}")


def descend(prefix: Any, key: Any, keys: tuple[Any, ...], path: Path) -> Any:
    """Returns the prefix of one child.

    Args:
      prefix: the prefix of the container; no leaf prefix.
      key: the child's key in the container.
      keys: all keys of the container.
      path: the container's path.

    Raises:
      PrefixError: if the prefix has not the container's structure.
    """
    if isinstance(prefix, (tuple, list)):
        if len(prefix) != len(keys):
            raise PrefixError(
                f"{format_path(path)} has {len(keys)} children but its prefix {prefix!r} has "
                f"{len(prefix)}: give one entry per child, or a single one for all"
            )
        return prefix[keys.index(key)]
    items = dict(prefix._pytree_items()) if isinstance(prefix, Pytree) else prefix
    if key not in items:
        raise PrefixError(
            f"the prefix of {format_path(path)} has no entry {key!r}: "
            f"found {sorted(map(str, items))}"
        )
    return items[key]
