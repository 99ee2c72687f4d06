"""Levels: the nested dict that the leaves of a graph make.

A State is a dict of dicts with a leaf at the end of each path. Where the paths are known, all the
dicts, the *levels*, are made from a list of leaves at once, and a list of leaves from the dicts.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from weft._path import Path
from weft._types import exhaust


class Levels:
    """The levels of leaves, no path of which goes through another or is empty.

    Levels are numbered, outer ones before those in them; number 0 holds all others.
    """

    __slots__ = ("_blanks", "_holders", "_keys", "_names", "_parents")

    def __init__(self) -> None:
        self._blanks: list[dict[Any, None]] = [{}]  # what is in each, in the order of the leaves
        self._parents: list[int] = []  # of all but the first
        self._names: list[Any] = []
        self._holders: list[int] = []  # of the leaves
        self._keys: list[Any] = []

    def add(self, parent: int, name: Any) -> int:
        """Adds a level inside another one; returns its number."""
        self._blanks[parent][name] = None
        self._blanks.append({})
        self._parents.append(parent)
        self._names.append(name)
        return len(self._parents)

    def drop(self) -> None:
        """Takes back the level that was added last."""
        self._blanks.pop()
        del self._blanks[self._parents.pop()][self._names.pop()]

    def add_leaf(self, holder: int, key: Any) -> None:
        """Adds a leaf, directly inside a level."""
        self._blanks[holder][key] = None
        self._holders.append(holder)
        self._keys.append(key)

    def nest(self, leaves: Sequence[Any]) -> dict[Any, Any]:
        """Makes the nested dict of some leaves."""
        levels: list[dict[Any, Any]] = list(map(dict.copy, self._blanks))
        parents = map(levels.__getitem__, self._parents)
        exhaust(map(operator.setitem, parents, self._names, itertools.islice(levels, 1, None)))
        exhaust(map(operator.setitem, map(levels.__getitem__, self._holders), self._keys, leaves))
        return levels[0]

    def leaves(self, nested: Any) -> list[Any] | None:
        """Returns the leaves of a nested dict; None if it is not made of these very levels."""
        if type(nested) is not dict:
            return None
        levels = [nested]
        try:
            for parent, name in zip(self._parents, self._names, strict=True):
                level = levels[parent][name]
                if type(level) is not dict:
                    return None
                levels.append(level)
            pairs = zip(self._holders, self._keys, strict=True)
            leaves = [levels[holder][key] for holder, key in pairs]
        except KeyError:
            return None
        if not all(map(operator.eq, map(len, levels), map(len, self._blanks))):
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

    def number_of(path: Path) -> int:
        number = numbers.get(path)
        if number is None:
            number = numbers[path] = levels.add(number_of(path[:-1]), path[-1])
        return number

    for path in paths:
        levels.add_leaf(number_of(path[:-1]), path[-1])
    return levels
