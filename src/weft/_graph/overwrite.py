"""Writing nothing but values: what `update` mostly comes down to.

Where a State has values for Variables that an object has, and nothing else changes, the values are
stored all at once: found by the object's memory, or, at the first look, by going down the State.
"""

from __future__ import annotations

from typing import Any

from weft._graph.content import content_of, is_first_look
from weft._graph.state import nested_dict
from weft._object.kinds import Kind, kind_of
from weft._object.pytree import attributes
from weft._variable.bulk import overwrite
from weft._variable.storage import get_metadata, get_slot
from weft._variable.values import is_leaf
from weft._variable.variable import Variable, is_variable


def overwrite_values(node: Any, state: Any, *, share: bool) -> bool:
    """Writes the values of a State into an object, if there is nothing else to it.

    Args:
      node: the object.
      state: a State, or anything else that `update` takes.
      share: False to refuse shared references.

    Returns:
      False where there is, or where it is an error; nothing is written then.
    """
    nested = nested_dict(state)
    if share and is_first_look(node):  # else a walk has to look for shared references
        targets: list[Variable] = []
        values: list[Any] = []
        is_plain = _pair(node, nested, targets, values) and not any(map(get_metadata, targets))
        return is_plain and all(map(is_leaf, map(get_slot, targets))) and overwrite(targets, values)
    content = content_of(node, share=share)
    if content.levels is None or not content.is_plain:
        return False
    found = content.levels.leaves(nested)
    return found is not None and overwrite(content.leaves, found)


def _pair(node: Any, nested: Any, targets: list[Variable], values: list[Any]) -> bool:
    """Pairs values with the Variables at their paths; returns whether each has one."""
    if kind_of(node) is Kind.OBJECT and type(node)._pytree_is_plain:
        inside, marks = attributes(node), node._pytree_marks
    elif kind_of(node) is Kind.OBJECT:
        inside, marks = dict(node._pytree_items()), node._pytree_marks
    elif type(node) in (dict, list):
        inside, marks = node if type(node) is dict else dict(enumerate(node)), {}
    else:
        return False
    if type(nested) is not dict:
        return False
    for key, value in nested.items():
        child: Any = inside.get(key)
        if marks and marks.get(key) is False:
            return False
        if is_variable(child):
            targets.append(child)
            values.append(value)
        elif not _pair(child, value, targets, values):
            return False
    return True
