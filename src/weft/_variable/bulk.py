"""Many Variables at once: loops over them that run in C.

What these do to each Variable is what `make` and `Variable.update_from_state` do to one.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from weft._core import trace
from weft._core.types import exhaust
from weft._variable.reads import forget
from weft._variable.storage import (
    get_keeper,
    get_metadata,
    get_slot,
    get_trace,
    make_variables,
    set_slot,
)
from weft._variable.values import own_value
from weft._variable.variable import Variable, is_variable


def copies_of(variables: Sequence[Variable]) -> list[Variable]:
    """Makes a Variable of the running trace of each, around the same arrays."""
    raws = list(map(get_slot, variables))
    # Asked after reading, and read again, as `Variable._raw` does.
    is_own = not any(map(get_keeper, variables))
    if not (is_own and all(map(operator.is_, raws, map(get_slot, variables)))):
        raws = [variable._raw for variable in variables]
    if not are_arrays(raws):
        raws = list(map(own_value, raws))
    return around(variables, raws)


def around(variables: Sequence[Variable], raws: Sequence[Any]) -> list[Variable]:
    """Makes a Variable of the running trace of each, around another value."""
    return make_variables(map(type, variables), raws, map(get_metadata, variables))


def overwrite(targets: Sequence[Variable], values: list[Any]) -> bool:
    """Writes values to Variables, if there is nothing else to it.

    Args:
      targets: Variables without metadata whose values are single leaves.
      values: Variables, of which the values are taken, or raw values.

    Returns:
      False where more than arrays of the same shape would change, or where it is an error; nothing
      is written then.
    """
    raws = values
    if all(map(is_variable, values)):
        raws = list(map(get_slot, values))
        if any(map(get_metadata, values)) or any(map(get_keeper, values)):
            return False
        if not all(map(operator.is_, raws, map(get_slot, values))):
            return False
    traces = map(get_trace, targets)
    if not are_arrays(raws) or not all(map(operator.eq, traces, itertools.repeat(trace.current()))):
        return False
    if any(map(get_keeper, targets)):
        if any(target._keeper is not None and target._keeper.stays for target in targets):
            return False
        expose(targets)
    if not _have_shapes_of(raws, list(map(get_slot, targets))):
        return False
    store_raws(targets, raws)
    return True


def expose(variables: Iterable[Variable]) -> None:
    """Notes that the arrays of some Variables, none of them a part, are handed out or replaced."""
    for variable in variables:
        while (keeper := variable._keeper) is not None:  # another one may take it over meanwhile
            keeper.expose(variable)
            if keeper.stays:
                break


_aval = operator.attrgetter("aval")
_shape = operator.attrgetter("shape")


def _have_shapes_of(new: list[Any], old: list[Any]) -> bool:
    # JAX has one aval for all alike, so that comparing them is quick.
    return are_arrays(old) and (
        list(map(_aval, new)) == list(map(_aval, old))
        or list(map(_shape, new)) == list(map(_shape, old))
    )


def store_raws(variables: Sequence[Variable], raws: Iterable[Any]) -> None:
    """Stores raw values as they are, leaves in the place of leaves."""
    forget()
    exhaust(map(set_slot, variables, raws))
    forget()


_array_types: set[type] = set()


def are_arrays(values: list[Any]) -> bool:
    """Returns whether all values are JAX's arrays."""
    if not _array_types.issuperset(map(type, values)):
        if not all(isinstance(value, jax.Array) for value in values):
            return False
        _array_types.update(map(type, values))
    return True
