"""Writing back: what came out of a function goes into the caller's objects, all of it or nothing.

A *write* is a Variable, its new raw value and its new metadata, None where that stays. A *refill*
is an object or container, its new items, and a record that says its type and what else it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft._core.static import Static
from weft._graph.walk import fill_node
from weft._object.pytree import Pytree
from weft._object.pytree import check_write as check_object_write
from weft._variable.guard import check_write
from weft._variable.keeper import check_kept, set_metadata_dict, set_raw
from weft._variable.variable import Variable

Write = tuple[Variable, Any, Static | None]
Refill = tuple[Any, list[tuple[Any, Any]], Any]


def write_back(writes: Sequence[Write], refills: Sequence[Refill]) -> None:
    """Writes into Variables and objects, or raises without writing anything."""
    for variable, raw, metadata in writes:
        check_write(variable)
        check_kept(variable, raw, metadata)
    for node, items, _ in refills:
        if isinstance(node, Pytree):
            check_object_write(node, items[0][0] if items else "attributes")
    # Everything is made and allowed: from here on nothing fails, so all of it is written.
    for variable, raw, metadata in writes:
        set_raw(variable, raw)
        if metadata is not None:
            set_metadata_dict(variable, dict(metadata.value))
    for node, items, record in refills:
        if type(node) is not record.type:  # a layer may be turned into another in place
            object.__setattr__(node, "__class__", record.type)
        fill_node(node, items, record.extra)
