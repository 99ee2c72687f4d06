"""Placing: what the type of an array says of a mesh, besides shape and dtype.

The *place* of an array is its sharding over explicit axes and, inside of `jax.shard_map`, the axes
over which it varies. What goes round in a loop must keep its place, and branches must agree on it;
but a first carry, zeros for the most part, has none. It is put where an iteration puts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, get_abstract_mesh

_MOST_ROUNDS = 4


class Place(NamedTuple):
    """Where the parts of an array are."""

    sharding: Any
    varying: frozenset[str]


Places = list[Place] | None
"""The places of the leaves of a pytree; None where no axis of the mesh is part of types."""


def settle(step: Callable[[Any], Any], first: Any) -> tuple[Any, Places]:
    """Finds the places in which a carry goes round.

    Args:
      step: returns the next carry.
      first: the first one, a pytree of arrays.

    Returns:
      The first carry in these places, and the places.
    """
    if not _has_typed_axes():
        return first, None
    places = _places_of(first)
    for _ in range(_MOST_ROUNDS):
        after = _places_after(step, first)
        wanted = [
            Place(new.sharding, old.varying | new.varying)
            for old, new in zip(places, after, strict=True)
        ]
        if wanted == places:
            break
        first, places = put(first, wanted), wanted
    return first, places


def agree(branches: Iterable[Callable[[Any], Any]], operands: Any) -> Places:
    """Finds places for what branches return, in which all of them can return it."""
    if not _has_typed_axes():
        return None
    found = [_places_after(branch, operands) for branch in branches]
    return [
        Place(max((p.sharding for p in places), key=_is_sharded), _union(places))
        for places in zip(*found, strict=True)
    ]


def put(arrays: Any, places: Places) -> Any:
    """Puts the arrays of a pytree in their places."""
    if places is None:
        return arrays
    leaves, treedef = jax.tree.flatten(arrays)
    return treedef.unflatten(map(_put_one, leaves, places))


def _put_one(x: Any, place: Place) -> Any:
    now = _place_of(x)
    if missing := sorted(place.varying - now.varying):
        x = jax.lax.pcast(x, tuple(missing), to="varying")
    return jax.sharding.reshard(x, place.sharding) if now.sharding != place.sharding else x


def _has_typed_axes() -> bool:
    return any(kind is not AxisType.Auto for kind in get_abstract_mesh().axis_types)


def _place_of(x: Any) -> Place:
    aval = jax.typeof(x)
    varying = getattr(aval, "manual_axis_type", None)
    return Place(aval.sharding, frozenset() if varying is None else varying.varying)


def _places_of(tree: Any) -> list[Place]:
    return list(map(_place_of, jax.tree.leaves(tree)))


def _places_after(step: Callable[[Any], Any], given: Any) -> list[Place]:
    found: list[Place] = []

    def look(given: Any) -> None:
        found[:] = _places_of(step(given))

    jax.eval_shape(look, given)
    return found


def _is_sharded(sharding: Any) -> bool:
    return any(names is not None for names in sharding.spec)


def _union(places: Iterable[Place]) -> frozenset[str]:
    return frozenset().union(*(place.varying for place in places))
