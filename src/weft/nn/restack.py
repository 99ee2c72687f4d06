"""Turning blocks into a Stack and back, as objects and as States."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, overload

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._graph import State, clone
from weft._graph.records import NodeDef, Record, ValueDef, VariableDef, describe_difference
from weft._graph.walk import Builder, Entry, Flattener
from weft._module import Pytree
from weft._module.containers import List
from weft._variable.storage import make
from weft._variable.variable import Variable
from weft.nn.stack import B, Policy, Stack, make_stack
from weft.nn.stack_state import (
    REMEDY,
    leaf_difference,
    places_of,
    stack_leaves,
    stack_state,
    unstack_state,
)


@overload
def stack(blocks: State | Mapping[Any, Any], /, *, like: Any = None) -> State: ...
@overload
def stack(
    blocks: Iterable[B],
    /,
    *,
    remat: bool | Policy | None = None,
    unroll: int | bool = 1,
    has_aux: bool = False,
    partition: str | None = None,
) -> Stack[B]: ...
def stack(blocks: Any, /, *, like: Any = None, **options: Any) -> Any:
    """Makes a Stack of blocks, or the State of a Stack from that of a list of blocks.

    Args:
      blocks: Modules of one structure, which are copied, and in which functions of equal code,
        defaults and closure count as the same; or a State or nested mapping in which
        the blocks of a list have their positions as keys.
      like: for a State, an object that has Stacks in the places of the lists; further keys may
        come before, as in the State of an optimizer. None for the State of a list.
      **options: `remat`, `unroll`, `has_aux` and `partition` of the Stack.

    Returns:
      A `Stack`, or a State.

    Raises:
      StructureError: naming the first path where blocks differ, with both shapes; if blocks share
        a Variable; if the State lacks a block.
      TypeError: for what are no Modules.
      ValueError: if there are no blocks.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> trunk = nnx.stack([nnx.Linear(4, 4, rngs=rngs) for _ in range(3)])
      >>> trunk.stacked.kernel.shape
      (3, 4, 4)
      >>> state = nnx.stack(nnx.state(nnx.unstack(trunk)))
      >>> state.stacked.kernel.shape
      (3, 4, 4)
    """
    if isinstance(blocks, (State, Mapping)):
        _check_no_options(options, "of a State, which has no such options")
        return stack_state(blocks, places_of(like))
    _check_no_options({} if like is None else {"like": like}, "of blocks: it is for States")
    if not isinstance(blocks, Iterable) or isinstance(blocks, str):
        raise TypeError(
            f"stack takes blocks or a State, found {type(blocks).__name__}: "
            "`nnx.stack([block, block])`, `nnx.stack(nnx.state(blocks))`"
        )
    blocks = list(blocks)
    for i, block in enumerate(blocks):
        if not isinstance(block, Pytree):
            raise TypeError(
                f"stack takes blocks, which are Modules, found {type(block).__name__} at [{i}]: "
                "`nnx.stack([block, block])`; arrays are stacked by `jnp.stack`"
            )
    if not blocks:
        raise ValueError("there are no blocks to stack: `nnx.stack([block, block])`")
    stacked = _stack_blocks(blocks, options.get("partition"))
    return make_stack(stacked, len(blocks), **options)


@overload
def unstack(stacked: Stack[B], /) -> List[B]: ...
@overload
def unstack(stacked: State | Mapping[Any, Any], /, *, like: Any = None) -> State: ...
def unstack(stacked: Any, /, *, like: Any = None) -> Any:
    """Makes a list of blocks from a Stack, or the State of a list from that of a Stack.

    Args:
      stacked: a Stack, which stays as it is; or a State or nested mapping of one.
      like: for a State, an object that has Stacks in the same places; further keys may come
        before, as in the State of an optimizer. None for the State of a Stack.

    Returns:
      An `nnx.List` of Modules with Variables of their own, or a State.

    Raises:
      TypeError: for anything else.

    Example:
      >>> import weft as nnx
      >>> trunk = nnx.Stack(lambda rngs: nnx.Linear(4, 4, rngs=rngs), 3, rngs=nnx.Rngs(0))
      >>> [block.kernel.shape for block in nnx.unstack(trunk)]
      [(4, 4), (4, 4), (4, 4)]
      >>> nnx.to_flat_state(nnx.unstack(nnx.state(trunk))).paths[0]
      (0, 'bias')
    """
    if isinstance(stacked, (State, Mapping)):
        return unstack_state(stacked, places_of(like))
    _check_no_options({} if like is None else {"like": like}, "of a Stack: it is for States")
    if not isinstance(stacked, Stack):
        raise TypeError(
            f"unstack takes a Stack or a State, found {type(stacked).__name__}: "
            "`nnx.unstack(model.blocks)`, `nnx.unstack(nnx.state(model), like=model)`"
        )
    return List([clone(layer, arrays=False) for layer in stacked])


def _check_no_options(options: Mapping[str, Any], where: str) -> None:
    if options:
        raise TypeError(f"{', '.join(options)} cannot be given with blocks {where}")


def _take_apart(block: Any) -> tuple[Record, list[Entry]]:
    flattener = Flattener()
    return flattener.flatten(block), flattener.entries


def _stack_blocks(blocks: list[Any], partition: str | None) -> Any:
    """Returns a Module of the blocks' structure in which their arrays are stacked."""
    (first, leaves), *others = map(_take_apart, blocks)
    columns = [[entry.value] for entry in leaves]
    for i, (record, entries) in enumerate(others, 1):
        difference = _difference(first, leaves, record, entries)
        if difference is not None:
            path, expected, found = difference
            raise StructureError(
                f"cannot stack blocks: {format_path((0, *path), 'blocks')} is {expected} and "
                f"{format_path((i, *path), 'blocks')} is {found}. {REMEDY}"
            )
        for column, entry in zip(columns, entries, strict=True):
            column.append(entry.value)
    _check_not_shared(leaves, columns)
    remaining = iter(columns)

    def variable(record: VariableDef) -> Variable:
        made = make(record.type, stack_leaves(next(remaining)), dict(record.metadata.value))
        made.add_axis(0, partition)
        return made

    return Builder(variable, lambda: stack_leaves(next(remaining))).build(first)


def _difference(
    first: Record, leaves: list[Entry], record: Record, entries: list[Entry]
) -> tuple[Path, str, str] | None:
    """Finds where a block differs from the first: in a shape, before what says the same."""
    expected = {entry.path: entry.value for entry in leaves}
    for path, value, _ in entries:
        if path in expected and (difference := leaf_difference(expected[path], value)):
            return path, *difference
    return describe_difference(_alike(first), _alike(record))


def _alike(record: Any) -> Any:
    """Returns a record in which functions of equal code, defaults and closure are equal."""
    if isinstance(record, Static):
        return Static(record.value, alike=True)
    if isinstance(record, (NodeDef, ValueDef)):
        return record._replace(children=tuple(map(_alike, record.children)))
    if isinstance(record, VariableDef):
        return record._replace(metadata=_alike(record.metadata))
    return record


def _check_not_shared(leaves: list[Entry], columns: list[list[Any]]) -> None:
    owners: dict[int, int] = {}
    for entry, column in zip(leaves, columns, strict=True):
        for i, value in enumerate(column):
            owner = owners.setdefault(id(value), i) if isinstance(value, Variable) else i
            if owner != i:
                raise StructureError(
                    f"cannot stack blocks: blocks[{owner}] and blocks[{i}] share the "
                    f"{type(value).__name__} at {format_path(entry.path)}, and in a Stack each has "
                    "its own. Pass what blocks share at the call, `stack(x, shared)`, or give each "
                    "a copy, `nnx.clone(block)`"
                )
