"""Snapshots: what cannot report that it changes, as it was when a plan was made.

Plain lists, dicts and sets, pytrees of other libraries and config objects change without anybody
being told. A snapshot keeps what was in them, and compares by identity on each call, all of them
at once and in C: keeping the elements alive is what makes identity safe, as the address of a dead
one would be used again. What in a static value may change, the value's box has noted (`Watched`).
"""

from __future__ import annotations

import collections
import functools
import itertools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax.tree_util as jtu

from weft._core.makeup import Aspect, own_dict
from weft._core.static import Watched
from weft._object.node_types import node_type

_values_of = dict.values
_dict_of = operator.attrgetter("__dict__")  # in C, but subject to what a class makes of it
_flat = itertools.chain.from_iterable
_PLAIN = frozenset({list, set, dict, collections.deque})

_MANY = 1000
"""From how many elements on a container is compared by `==`, which is 30 times as fast.

Elements that are the same object count as equal without a look at them. An element that is replaced
by an equal one of another type (`1` by `True`) is not noticed there.
"""


class Snapshot:
    """What was seen in things that change silently."""

    __slots__ = ("_before", "_checks", "_holders", "_lengths", "_mappings", "_seen", "_sequences")

    def __init__(self) -> None:
        self._sequences: list[Any] = []  # lists, sets and deques
        self._mappings: list[dict[Any, Any]] = []
        self._holders: list[Any] = []  # objects whose attributes are among the mappings
        self._checks: list[Callable[[], bool]] = []  # of all else
        self._seen: dict[tuple[Any, int], Any] = {}  # alive, so that no address is used twice
        self._lengths: list[int] = []
        self._before: tuple[list[Any], ...] = ()

    # -- making one
    def add_container(self, value: Any) -> None:
        """Adds a mutable container, but nothing inside of it."""
        kind = type(value)
        if kind in (list, set, collections.deque):
            self._sequences.append(value)
        elif kind is dict:
            self._mappings.append(value)
        else:  # what it is made of is not for its own methods to say
            handler = node_type(kind)
            before, extra = handler.items(value), handler.extra(value)

            def check() -> bool:
                now = handler.items(value)
                same_values = len(now) == len(before) and all(
                    a is b for (_, a), (_, b) in zip(before, now, strict=True)
                )
                same_keys = same_values and [k for k, _ in before] == [k for k, _ in now]
                return same_keys and type(value) is kind and handler.extra(value) == extra

            self._checks.append(check)

    def add_levels(self, mapping: dict[Any, Any]) -> None:
        """Adds a nested dict, and the dicts below it."""
        self._mappings.append(mapping)
        for child in mapping.values():
            if type(child) is dict:
                self.add_levels(child)

    def add_foreign(self, value: Any) -> None:
        """Adds a pytree that is registered with JAX: its structure and what is directly inside."""
        is_inside = lambda x: x is not value  # noqa: E731
        before, treedef = jtu.tree_flatten(value, is_inside)

        def check() -> bool:
            now, found = jtu.tree_flatten(value, is_inside)
            return found == treedef and all(map(operator.is_, before, now))

        self._checks.append(check)

    def add_check(self, check: Callable[[], bool]) -> None:
        """Adds a function that says whether something is as it was."""
        self._checks.append(check)

    def add_static(self, watched: Iterable[Watched]) -> None:
        """Adds what a static value's box has noted of it."""
        for how, value in watched:
            key = (how, id(value))
            if key in self._seen:
                continue
            self._seen[key] = value
            if isinstance(how, Aspect):
                self._add_aspect(how, value)
            else:
                self._checks.append(functools.partial(how.matches, value))

    def _add_aspect(self, aspect: Aspect, value: Any) -> None:
        home: Any = None
        if aspect.home is not None:
            home = aspect.home(value)
            if home is None:
                return
        if type(home) not in _PLAIN or len(home) >= _MANY:
            self._checks.append(_unchanged(aspect, value))
            return
        if aspect.home is own_dict:  # which may be replaced by another
            if _dict_of(value) is home:
                self._holders.append(value)
            else:
                self._checks.append(lambda: own_dict(value) is home)
        (self._mappings if type(home) is dict else self._sequences).append(home)

    def close(self) -> Snapshot | None:
        """Takes the snapshot; returns None if there is nothing that could change."""
        self._seen = {}
        self._lengths = [*map(len, self._sequences), *map(len, self._mappings)]
        try:
            self._before = tuple(map(list, self._read()))
        except RuntimeError:  # another thread changes a container
            self._lengths = [-1]
        return self if self._lengths or self._checks else None

    # -- comparing
    def _read(self) -> tuple[Iterable[Any], ...]:
        mappings = self._mappings
        return (
            _flat(self._sequences),
            _flat(mappings),
            _flat(map(_values_of, mappings)),
            map(_dict_of, self._holders),
        )

    def holds(self) -> bool:
        """Returns whether everything is as it was."""
        if self._lengths:
            if self._lengths != [*map(len, self._sequences), *map(len, self._mappings)]:
                return False
            try:
                if not all(map(operator.is_, _flat(self._before), _flat(self._read()))):
                    return False
            except (AttributeError, RuntimeError):  # another thread changes a container
                return False
        return not self._checks or all(check() for check in self._checks)


def snapshot_of(watched: Iterable[Watched]) -> Snapshot | None:
    """Returns a snapshot of what may change in static values, None if nothing may."""
    snapshot = Snapshot()
    snapshot.add_static(watched)
    return snapshot.close()


def _unchanged(aspect: Aspect, value: Any) -> Callable[[], bool]:
    """Returns a function that says whether an aspect of a value is as it is now."""

    def read() -> list[Any]:
        names = () if aspect.names is None else aspect.names(value)
        return [*names, *aspect.values(value)]

    try:
        before = read()
    except RuntimeError:  # another thread changes it
        return lambda: False

    def check() -> bool:
        try:
            now = read()
            if len(now) >= _MANY:
                return before == now
            return len(before) == len(now) and all(map(operator.is_, before, now))
        except Exception:  # code of the user's, or another thread that changes it
            return False

    return check
