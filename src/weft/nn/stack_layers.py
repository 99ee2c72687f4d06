"""Layers: the parts of a Module whose Variables are stacked.

A *layer* has the structure of the stacked Module. Its Variables are parts of the stacked ones; its
objects are its own and frozen, because structure is common to all layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft._graph.records import VariableDef
from weft._graph.walk import Builder, Flattener
from weft._module import Pytree
from weft._object.pytree import freeze
from weft._variable.part import part_of, take_part
from weft._variable.variable import Variable

_REASON = (
    "the layers of a Stack have their structure and static attributes in common. Change the Stack, "
    "`stack.set_attributes(name=value)` or `stack.stacked.name = value`; hold what differs from "
    "layer to layer in a Variable"
)


def layers_of(stacked: Any) -> Callable[[int | range], Any]:
    """Returns a function that makes a layer of an index, or the stacked layers of a range."""
    flattener = Flattener()
    record = flattener.flatten(stacked)

    def layer(index: int | range) -> Any:
        values = iter(flattener.entries)

        def variable(record: VariableDef) -> Variable:
            return part_of(next(values).value, index)

        def array() -> Any:
            return take_part(next(values).value, index)

        def frozen(number: int, node: Any, items: Any) -> Any:
            if isinstance(node, Pytree):
                freeze(node, _REASON)
            return node

        return Builder(variable, array, on_build=frozen).build(record)

    return layer
