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
    """The levels of leaves at some paths, none of which goes through another or is empty."""

    __slots__ = ("_blanks", "_holders", "_keys", "_names", "_parents", "_rows", "_sizes")

    def __init__(self, paths: Sequence[Path]):
        # Levels are numbered, those that are less deep first; the first one holds all others.
        deepest = max(map(len, paths), default=1)
        prefixes: list[Path] = [()]
        self._rows: list[int] = []  # how many there are of each depth
        for depth in range(1, deepest):
            row = dict.fromkeys(path[:depth] for path in paths if len(path) > depth)
            prefixes += row
            self._rows.append(len(row))
        numbers = {prefix: i for i, prefix in enumerate(prefixes)}
        self._parents = [numbers[prefix[:-1]] for prefix in prefixes[1:]]
        self._names = [prefix[-1] for prefix in prefixes[1:]]
        self._holders = [numbers[path[:-1]] for path in paths]
        self._keys = [path[-1] for path in paths]
        self._blanks: list[dict[Any, None]] = [{} for _ in prefixes]
        for path in paths:  # keys are in the order of the paths
            for depth, key in enumerate(path):
                self._blanks[numbers[path[:depth]]].setdefault(key)
        self._sizes = list(map(len, self._blanks))

    def nest(self, leaves: Sequence[Any]) -> dict[Any, Any]:
        """Makes the nested dict of some leaves."""
        levels: list[dict[Any, Any]] = list(map(dict.copy, self._blanks))
        parents = map(levels.__getitem__, self._parents)
        exhaust(map(operator.setitem, parents, self._names, itertools.islice(levels, 1, None)))
        exhaust(map(operator.setitem, map(levels.__getitem__, self._holders), self._keys, leaves))
        return levels[0]

    def leaves(self, nested: Any) -> list[Any] | None:
        """Returns the leaves of a nested dict; None if it is not made of these very levels."""
        levels, row = [], [nested]
        start = 0
        try:
            for size in [*self._rows, 0]:
                if set(map(type, row)) != {dict}:
                    return None
                levels += row
                parents = map(levels.__getitem__, self._parents[start : start + size])
                row = list(map(operator.getitem, parents, self._names[start:]))
                start += size
            if list(map(len, levels)) != self._sizes:
                return None
            holders = map(levels.__getitem__, self._holders)
            leaves = list(map(operator.getitem, holders, self._keys))
        except KeyError:
            return None
        if any(issubclass(kind, Mapping) for kind in set(map(type, leaves))):
            return None  # the value of a Variable, or a level that is not one of these
        return leaves


def levels_of(paths: Sequence[Path]) -> Levels | None:
    """Returns the levels of leaves, None where the only path is the empty one."""
    return None if list(paths) == [()] else Levels(paths)
