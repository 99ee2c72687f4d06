"""Levels: the nested dict that the leaves of a graph make.

A State is a dict of dicts with a leaf at the end of each path. Where the paths are known, all the
dicts, the *levels*, are made from a list of leaves at once, and a list of leaves from the dicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weft._core.path import Path


class Levels:
    """The levels of leaves, no path of which goes through another or is empty.

    Levels are numbered, outer ones before those in them; number 0 holds all others.
    """

    __slots__ = ("_entries", "_sizes")

    def __init__(self) -> None:
        self._entries: list[tuple[int, Any, bool]] = []  # where, the key, and whether a level
        self._sizes: list[int] = [0]  # of the levels

    def add(self, parent: int, name: Any) -> int:
        """Adds a level inside another one; returns its number."""
        self._entries.append((parent, name, True))
        self._sizes[parent] += 1
        self._sizes.append(0)
        return len(self._sizes) - 1

    def drop(self) -> None:
        """Takes back the level that was added last, in which there is nothing."""
        parent, _, _ = self._entries.pop()
        self._sizes[parent] -= 1
        self._sizes.pop()

    def add_leaf(self, holder: int, key: Any) -> None:
        """Adds a leaf, directly inside a level."""
        self._entries.append((holder, key, False))
        self._sizes[holder] += 1

    def nest(self, leaves: Iterable[Any]) -> dict[Any, Any]:
        """Makes the nested dict of some leaves."""
        levels: list[dict[Any, Any]] = [{}]
        remaining = iter(leaves)
        for parent, key, is_level in self._entries:
            if is_level:
                level: dict[Any, Any] = {}
                levels[parent][key] = level
                levels.append(level)
            else:
                levels[parent][key] = next(remaining)
        return levels[0]

    def leaves(self, nested: Any) -> list[Any] | None:
        """Returns the leaves of a nested dict; None if it is not made of these very levels."""
        if type(nested) is not dict:
            return None
        levels, leaves = [nested], []
        try:
            for parent, key, is_level in self._entries:
                value = levels[parent][key]
                if not is_level:
                    leaves.append(value)
                elif type(value) is dict:
                    levels.append(value)
                else:
                    return None
        except KeyError:
            return None
        if list(map(len, levels)) != self._sizes:
            return None
        if any(issubclass(kind, Mapping) for kind in {*map(type, leaves)}):
            return None  # the value of a Variable, or a level that is not one of these
        return leaves


def levels_of(paths: Sequence[Path]) -> Levels | None:
    """Returns the levels of leaves at some paths, None where the only path is the empty one."""
    if list(paths) == [()]:
        return None
    levels = Levels()
    numbers: dict[Path, int] = {(): 0}
    for path in paths:
        parent = numbers.get(path[:-1])
        if parent is None:
            parent = 0
            for end in range(1, len(path)):
                inside = path[:end]
                if inside not in numbers:
                    numbers[inside] = levels.add(parent, path[end - 1])
                parent = numbers[inside]
        levels.add_leaf(parent, path[-1])
    return levels
