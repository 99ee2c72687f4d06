"""Tangents: what a gradient or a direction of an argument looks like.

The tangent of an object is a State of the Variables that are differentiated; where structure
updates or shared references are off and all of it is differentiated, it is an object of its own
type. Arrays have tangents like themselves, and containers of arguments contain the tangents of
their parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._graph.records import (
    ArrayDef,
    NodeDef,
    Record,
    ValueDef,
    VariableDef,
    iter_records,
)
from weft._graph.state import from_flat_state
from weft._graph.walk import Flattener, join_value, make_variable
from weft._lift.jit.spec import Call
from weft._lift.lift import Mode, put_together, raw_leaves, value_from


def form_tangent(
    record: Record, is_chosen: Iterator[bool], values: Iterator[Any], mode: Mode
) -> Any:
    """Gives tangents the form of a value.

    Args:
      record: the value's record.
      is_chosen: for each leaf, whether it has a tangent.
      values: the tangents of the arrays of those that have.
      mode: the transform's mode.
    """
    if isinstance(record, NodeDef):
        parts = [(p, r) for p, r in iter_records(record) if isinstance(r, _LEAVES)]
        chosen = [next(is_chosen) for _ in parts]
        if not mode.gives_states and all(chosen):
            return put_together(record, values)
        pairs = zip(parts, chosen, strict=True)
        return from_flat_state([(p, _leaf(values, r)) for (p, r), wanted in pairs if wanted])
    if isinstance(record, ValueDef):
        children = [form_tangent(child, is_chosen, values, mode) for child in record.children]
        return join_value(record, tuple(children))
    if isinstance(record, _LEAVES):
        return _leaf(values, record) if next(is_chosen) else None
    return record.value if isinstance(record, Static) else from_flat_state(())


_LEAVES = (VariableDef, ArrayDef)


def _leaf(values: Iterator[Any], record: Any) -> Any:
    if isinstance(record, VariableDef):
        return make_variable(record, value_from(record.treedef, values))
    return next(values)


def tangents_of(call: Call, chosen: Iterable[int], values: Iterable[Any], mode: Mode) -> list[Any]:
    """Gives tangents (or gradients) the form of the arguments they belong to.

    Args:
      call: the call; the prefix of an entry says whether it is differentiated.
      chosen: the arguments wanted, by position.
      values: the tangents of all differentiated arrays, in the order of the walk.
      mode: the transform's mode.
    """
    is_chosen, remaining = (iter([bool(e.prefix) for e in call.entries]), iter(values))
    formed = [
        form_tangent(record, is_chosen, remaining, mode) for record in call.spec.record.children
    ]
    return [formed[i] for i in chosen]


def leaves_by_path(tangent: Any, path: Path) -> dict[Path, Any]:
    """Returns the Variables and arrays of a tangent (State, dict, object, array) by path."""
    flattener = Flattener(arguments=True)
    flattener.flatten(tangent, path)
    return {entry.path: entry.value for entry in flattener.entries}


def match(
    places: Iterable[tuple[Path, list[Any]]], given: dict[Path, Any], what: str
) -> list[list[Any] | None]:
    """Finds the tangent arrays for each place, None where there are none.

    Args:
      places: the paths of leaves, and the arrays there or their avals.
      given: tangents by path.
      what: the beginning of an error: who has which tangents.

    Raises:
      StructureError: naming tangents without a place, and those of another shape.
    """
    places = list(places)
    unknown = given.keys() - {path for path, _ in places}
    if unknown:
        known = ", ".join(format_path(path) for path, _ in places)
        raise StructureError(
            f"{what} for {', '.join(map(format_path, sorted(unknown, key=repr)))}, which the "
            f"arguments do not have; they have {known}"
        )
    matched: list[list[Any] | None] = []
    for path, own in places:
        arrays = raw_leaves(given[path]) if path in given else None
        for old, new in zip(own, arrays or (), strict=False):
            if jnp.shape(old) != jnp.shape(new):
                raise StructureError(
                    f"{what} for {format_path(path)} of shape {jnp.shape(new)}, expected "
                    f"{jnp.shape(old)}"
                )
        matched.append(arrays)
    return matched
