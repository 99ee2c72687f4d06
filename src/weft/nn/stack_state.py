"""States of stacked blocks and of unrolled ones.

A *place* is where a model has a Stack. Below it the State of the Stack has the key `stacked` and
arrays with the blocks on axis 0; the State of a list of blocks has their positions as keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._graph import State, from_flat_state, state, to_flat_state
from weft._graph.iterate import iter_graph
from weft._variable.metadata import axis_names
from weft._variable.part import aval_text, take_part, unused
from weft._variable.variable import Variable
from weft.nn.stack import Stack

REMEDY = (
    "The blocks of a Stack have one structure; where they differ, put several Stacks in a row, "
    "`nnx.Stack(...)` for each kind of block"
)


def raw_of(leaf: Any) -> Any:
    """Returns the value of a Variable, or the array that is no Variable."""
    return leaf._raw if isinstance(leaf, Variable) else leaf


def leaf_difference(first: Any, other: Any) -> tuple[str, str] | None:
    """Says how two leaves differ in structure, dtype or shape, None if they do not."""
    (expected, treedef), (found, other_treedef) = map(
        jax.tree.flatten, (raw_of(first), raw_of(other))
    )
    if treedef != other_treedef:
        return str(treedef), str(other_treedef)
    for x, y in zip(map(aval_text, expected), map(aval_text, found), strict=True):
        if x != y:
            return x, y
    return None


def stack_leaves(leaves: list[Any]) -> Any:
    """Stacks arrays, or pytrees of arrays of one structure, on axis 0."""

    def join(*parts: Any) -> Any:
        if isinstance(parts[0], jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((len(parts), *parts[0].shape), parts[0].dtype)
        return jnp.stack([unused(jnp.asarray(part)) for part in parts])

    return jax.tree.map(join, *map(raw_of, leaves))


class Place(NamedTuple):
    """Where a State has blocks.

    Attributes:
      path: the path of their Stack or list.
      n: how many blocks there are, None if that is not known.
      partition: the mesh axis of the axis of the blocks.
      inside: the paths of the leaves inside a block, None for all that there are.
    """

    path: Path = ()
    n: int | None = None
    partition: str | None = None
    inside: frozenset[Path] | None = None

    def part(self, path: Path) -> tuple[Path, Any, Path] | None:
        """Parts the path of a leaf in this place: up to the place, the key there, inside a block.

        Where the leaves are known, other keys may come before the place.
        """
        size = len(self.path)
        for start in range(len(path) - size if self.inside is not None else 1):
            end = start + size
            if path[start:end] == self.path and len(path) > end:
                if self.inside is None or path[end + 1 :] in self.inside:
                    return path[:end], path[end], path[end + 1 :]
        return None


def places_of(like: Any) -> list[Place]:
    """Lists the places of an object's Stacks, those inside other Stacks left out.

    Raises:
      StructureError: if there are none.
    """
    if like is None:
        return [Place()]
    stacks = [(path, value) for path, value in iter_graph(like) if isinstance(value, Stack)]
    if not stacks:
        raise StructureError(
            f"`like` is a {type(like).__name__} without a Stack: give the model that has the "
            "Stacks, `like=model`"
        )
    paths = [path for path, _ in stacks]
    return [
        Place(path, s.n, s.partition, frozenset(to_flat_state(state(s.stacked)).paths))
        for path, s in stacks
        if not any(path != other and path[: len(other)] == other for other in paths)
    ]


def unstack_state(stacked: Any, places: list[Place]) -> State:
    """Returns a State with the keys and arrays of unrolled blocks."""
    flat: dict[Path, Any] = {}
    for path, leaf in to_flat_state(stacked):
        for place in places:
            parted = place.part(path)
            if parted is not None and parted[1] == "stacked":
                before, _, inside = parted
                for i in range(_length(leaf) if place.n is None else place.n):
                    flat[(*before, i, *inside)] = _take(leaf, i)
                break
        else:
            flat[path] = leaf
    return from_flat_state(flat)


def _length(leaf: Any) -> int:
    return next((array.shape[0] for array in jax.tree.leaves(raw_of(leaf))), 0)


def _take(leaf: Any, i: int) -> Any:
    if not isinstance(leaf, Variable):
        return take_part(leaf, i)
    new = leaf.copy(take_part(leaf._raw, i))
    names = axis_names(new._metadata.get("out_sharding") or ())
    new.remove_axis(0, names[0] if names else None)
    return new


def stack_state(unrolled: Any, places: list[Place]) -> State:
    """Returns a State with the keys and arrays of Stacks.

    Raises:
      StructureError: if a leaf is missing in a block, or has another shape than in the others.
    """
    flat: dict[Path, Any] = {}
    groups: dict[tuple[Path, Path, Place], dict[int, Any]] = {}
    for path, leaf in to_flat_state(unrolled):
        for place in places:
            parted = place.part(path)
            if parted is not None and type(parted[1]) is int:
                before, i, inside = parted
                groups.setdefault((before, inside, place), {})[i] = leaf
                break
        else:
            flat[path] = leaf
    longest = max((max(leaves) + 1 for leaves in groups.values()), default=0)
    for (before, inside, place), leaves in groups.items():
        length = longest if place.n is None else place.n
        wrong = sorted(leaves.keys() ^ set(range(length)))
        if wrong:
            fault = "one too many" if wrong[0] in leaves else "missing"
            raise StructureError(
                f"cannot stack a State of {length} blocks: "
                f"{format_path((*before, wrong[0], *inside))} is {fault}. {REMEDY}"
            )
        column = [leaves[i] for i in range(length)]
        for i, leaf in enumerate(column):
            if difference := leaf_difference(column[0], leaf):
                raise StructureError(
                    f"cannot stack a State: {format_path((*before, 0, *inside))} is "
                    f"{difference[0]} and {format_path((*before, i, *inside))} is "
                    f"{difference[1]}. {REMEDY}"
                )
        flat[(*before, "stacked", *inside)] = _join(column, place.partition)
    return from_flat_state(flat)


def _join(leaves: list[Any], partition: str | None) -> Any:
    raw = stack_leaves(leaves)
    if not isinstance(leaves[0], Variable):
        return raw
    new = leaves[0].copy(raw)
    new.add_axis(0, partition)
    return new
