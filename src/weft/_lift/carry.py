"""Carries: values that go from one iteration of a loop to the next.

A *carry* holds arrays and objects. Its *look* is its structure and what is at its leaves; from one
iteration to the next the structure must stay, and so must the place of each object. What a body
does to a carried Variable is simply the Variable's next value.
"""

from __future__ import annotations

import reprlib
from typing import Any, NamedTuple

import jax

from weft._core.arguments import is_taken
from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._graph.records import ArrayDef, Record, VariableDef, describe_difference, iter_records
from weft._graph.walk import Flattener
from weft._lift.jit.spec import Exit, Groups, Spec
from weft._lift.lift import Inside, Lift, outcome, raw_leaves, value_from


class Look(NamedTuple):
    """The structure of a carry, its objects in the order of the walk, and its leaves."""

    record: Record
    objects: list[Any]
    values: list[Any]
    leaves: list[list[Any]]

    @property
    def arrays(self) -> list[Any]:
        """All arrays, in the order of the walk."""
        return [array for arrays in self.leaves for array in arrays]


def look_at(carry: Any) -> Look:
    """Takes a carry apart, counting its objects from zero."""
    flattener = Flattener(arguments=True)
    record = flattener.flatten(carry)
    values = [entry.value for entry in flattener.entries]
    return Look(record, flattener.table.objects, values, [raw_leaves(value) for value in values])


def check_carry(
    lift: Lift, inside: Inside, before: Look, after: Look, path: Path = (), note: str = ""
) -> None:
    """Raises unless a carry looks the same after an iteration as before.

    Raises:
      StructureError: naming the path, and what was there before and after.
    """
    name = f"the carry of nnx.{lift.transform} of {lift.name!r}"
    difference = describe_difference(before.record, after.record, path)
    if difference is not None:
        where, expected, found = difference
        raise StructureError(
            f"{name} must keep its structure from one iteration to the next: "
            f"{format_path(where)} was {expected} before and is {found} after. Return a carry of "
            f"the same structure; hold what changes in a Variable, `nnx.Variable(value)`{note}"
        )
    known = {id(obj) for obj in inside.objects}
    for old, new in zip(before.objects, after.objects, strict=True):
        if new is not old and id(new) in known:
            raise StructureError(
                f"{name} has a {type(new).__name__} of the call at the place of another: objects "
                "must keep their places. Exchange their values: `a[...], b[...] = b[...], a[...]`"
            )
    leaves = [p for p, r in iter_records(after.record) if isinstance(r, (ArrayDef, VariableDef))]
    for leaf, old_arrays, new_arrays in zip(leaves, before.leaves, after.leaves, strict=True):
        for old, new in zip(old_arrays, new_arrays, strict=True):
            check_same_aval(name, (*path, *leaf), old, new)


def check_arrays_out(lift: Lift, spec: Spec, exit: Exit, groups: Groups) -> None:
    """Raises if something comes out of a body that is no array.

    Raises:
      TypeError: naming the path.
    """
    remaining = [iter(group) for group in groups]
    for group, (path, treedef) in zip(exit.grouping, outcome(spec, exit), strict=True):
        for value in jax.tree.leaves(value_from(treedef, remaining[group])):
            check_array(f"nnx.{lift.transform} of {lift.name!r}", path, value)


def check_array(name: str, path: Path, value: Any) -> None:
    """Raises TypeError unless JAX takes a value for an array."""
    if not is_taken(value):
        raise TypeError(
            f"{name} leaves {format_path(path)} as {reprlib.repr(value)}, a "
            f"{type(value).__name__}, which is no array. Return arrays, and hold what is static in "
            "an attribute"
        )


def check_same_aval(name: str, path: Path, old: Any, new: Any) -> None:
    """Raises if an array of a carry changes its shape or dtype."""
    check_array(name, path, new)
    before, after = jax.typeof(old), jax.typeof(new)
    is_promoted = before.weak_type and before.shape == after.shape  # JAX promotes the first value
    if (before.shape, before.dtype) != (after.shape, after.dtype) and not is_promoted:
        raise StructureError(
            f"{name} must keep shapes and dtypes from one iteration to the next: "
            f"{format_path(path)} was {before.str_short()} before and is {after.str_short()} "
            "after. Convert it in the body, `x.astype(dtype)`, or start with that shape and dtype"
        )


def sources(
    lift: Lift, spec: Spec, exit: Exit, groups: Groups, carry: int, carried: list[Any]
) -> tuple[int, ...]:
    """Finds where in the carry each array that shall come out of a loop goes.

    Args:
      lift: the loop.
      spec: the call's.
      exit: what comes out of the body.
      groups: its arrays.
      carry: which group is the carry.
      carried: the next carry.

    Raises:
      StructureError: naming the path of one that goes nowhere.
    """
    places = {id(array): i for i, array in enumerate(carried)}
    arrays = iter(groups[carry])
    found: list[int] = []
    for group, (path, treedef) in zip(exit.grouping, outcome(spec, exit), strict=True):
        for array in jax.tree.leaves(value_from(treedef, arrays)) if group == carry else ():
            if id(array) not in places:
                raise StructureError(
                    f"nnx.{lift.transform} of {lift.name!r} sets {format_path(path)}, which is in "
                    "no place of the carry that it returns: what was set would be lost. Return "
                    "the object that was given, and hold what changes in a Variable"
                )
            found.append(places[id(array)])
    return tuple(found)
