"""Graphs as values: short functions over the walk.

`split` takes an object apart into a `GraphDef` and States, `merge` makes one of them again,
`clone` copies an object, `pop` takes Variables out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

import jax

from weft._core import config
from weft._core.errors import StructureError
from weft._core.filters import Filter, filter_flat, to_predicate
from weft._core.path import Path, format_path, path_sort_key
from weft._core.tracebacks import boundary
from weft._graph.assembly import assembly_of
from weft._graph.content import Content, content_of
from weft._graph.copies import copy_arrays
from weft._graph.graph_state import GraphState
from weft._graph.records import (
    ArrayDef,
    GraphDef,
    NodeDef,
    Record,
    Ref,
    VariableDef,
    children_of,
    iter_records,
)
from weft._graph.state import (
    FlatState,
    State,
    flatten_until,
    from_flat_state,
    nested_dict,
)
from weft._graph.walk import Flattener, Table, items_of, make_variable
from weft._object.node_types import refill
from weft._object.pytree import Pytree
from weft._object.pytree import check_write as check_object_write
from weft._variable.bulk import around, copies_of
from weft._variable.values import own_value
from weft._variable.variable import Variable, is_variable, pure_value

N = TypeVar("N")


def shares(graph: bool | None) -> bool:
    """Returns whether shared references are allowed: as said, or as set."""
    return config.set_graph_mode.get() if graph is None else graph


def take_apart(node: Any, graph: bool | None = None) -> Content:
    """Returns what an object consists of; `graph` is False to refuse shared references."""
    return content_of(node, share=shares(graph))


@overload
def split(
    node: N, filter: Filter = ..., /, *, graph: bool | None = None
) -> tuple[GraphDef[N], State]: ...
@overload
def split(
    node: N, filter: Filter, second: Filter, /, *, graph: bool | None = None
) -> tuple[GraphDef[N], State, State]: ...
@overload
def split(
    node: N,
    filter: Filter,
    second: Filter,
    third: Filter,
    /,
    *,
    graph: bool | None = None,
) -> tuple[GraphDef[N], State, State, State]: ...
@overload
def split(
    node: N, *filters: Filter, graph: bool | None = None
) -> tuple[GraphDef[N], State, *tuple[State, ...]]: ...
@boundary
def split(node: Any, *filters: Filter, graph: bool | None = None) -> Any:
    """Takes an object apart into its structure and its Variables.

    The States hold the object's own Variables, not copies.

    Args:
      node: an object, or a pytree of objects.
      *filters: one State each, tried in order; all Variables go into one State if there are none.
      graph: False to refuse shared references; None for the setting.

    Returns:
      `(graphdef, state, *states)`.

    Raises:
      FilterError: if a Variable matches no filter.
      SharedReferenceError: if `graph` is False and an object is met twice.

    Example:
      >>> import weft as nnx
      >>> model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
      >>> graphdef, params, rest = nnx.split(model, nnx.Param, ...)
      >>> nnx.merge(graphdef, params, rest).num_features
      2
    """
    content = take_apart(node, graph)
    return (content.graphdef, *content.states(filters, exhaustive=True))


def graphdef(node: N, /, *, graph: bool | None = None) -> GraphDef[N]:
    """Returns the structure of an object.

    Example:
      >>> import weft as nnx
      >>> nnx.graphdef(nnx.Linear(2, 3, rngs=nnx.Rngs(0))).num_leaves
      2
    """
    return take_apart(node, graph).graphdef


@overload
def state(node: Any, filter: Filter = ..., /, *, graph: bool | None = None) -> State: ...
@overload
def state(
    node: Any,
    first: Filter,
    second: Filter,
    /,
    *filters: Filter,
    graph: bool | None = None,
) -> tuple[State, ...]: ...
@boundary
def state(node: Any, *filters: Filter, graph: bool | None = None) -> Any:
    """Returns the object's own Variables, those that match the filters.

    Args:
      node: an object, or a pytree of objects.
      *filters: one State each; all Variables if there are none.
      graph: False to refuse shared references; None for the setting.

    Returns:
      One State, or a tuple of one per filter.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.state(model, nnx.Param).kernel is model.kernel
      True
    """
    states = take_apart(node, graph).states(filters, exhaustive=False)
    return states[0] if len(states) == 1 else tuple(states)


variables = state


def leaves_for(graphdef: GraphDef, states: tuple[Any, ...]) -> list[Any]:
    """Returns the leaves of some States in the order of the walk.

    Raises:
      StructureError: saying what does not fit.
    """
    assembly = assembly_of(graphdef)
    if len(states) == 1 and assembly.levels is not None:
        leaves = assembly.levels.leaves(nested_dict(states[0]))
        if leaves is not None:
            return leaves
    return leaves_at(list(zip(assembly.paths, assembly.leaves, strict=True)), states)


def leaves_at(places: list[tuple[Path, Any]], states: tuple[Any, ...]) -> list[Any]:
    """Returns the leaves of some States at the paths of these leaves, in their order.

    Raises:
      StructureError: saying what does not fit.
    """
    paths = [path for path, _ in places]
    if len(states) == 1 and isinstance(states[0], (list, tuple)):
        return _sorted_leaves(paths, states[0])
    if paths == [()]:
        whole = whole_values(states)
        if not whole:
            raise StructureError(
                "the state does not fit the GraphDef of one leaf, which is the object itself: "
                "found no value. Give `merge` every State that `split` returned, as it returned "
                "them"
            )
        return whole[:1]
    trees = {path for path, record in places if getattr(record, "treedef", None) is not None}
    given: dict[Path, Any] = {}
    for part in states:
        given.update(flatten_given(part, trees))
    missing = [path for path in paths if path not in given]
    unexpected = sorted(given.keys() - set(paths), key=path_sort_key)
    if missing or unexpected:
        lines = [f"the state does not fit the GraphDef of {len(paths)} leaves:"]
        lines += [f"  missing: {format_path(path)}" for path in missing[:20]]
        lines += [f"  unexpected: {format_path(path)}" for path in unexpected[:20]]
        lines.append("Give `merge` every State that `split` returned, as it returned them")
        raise StructureError("\n".join(lines))
    return [given[path] for path in paths]


def whole_values(states: Iterable[Any]) -> list[Any]:
    """Returns what there is for an object that is a leaf itself; a State of it may be empty."""
    found: list[Any] = []
    for part in states:
        if isinstance(part, FlatState):
            found.extend(part.leaves)
        elif not isinstance(part, State) or part:
            found.append(part)
    return found


def _sorted_leaves(paths: list[Path], leaves: Sequence[Any]) -> list[Any]:
    """Returns leaves sorted by path in the order of the walk."""
    if len(leaves) != len(paths):
        raise StructureError(
            f"expected a list of {len(paths)} leaves, one per Variable, found {len(leaves)}"
        )
    order = sorted(range(len(paths)), key=lambda i: path_sort_key(paths[i]))
    placed: list[Any] = [None] * len(paths)
    for leaf, i in zip(leaves, order, strict=True):
        placed[i] = leaf
    return placed


def flatten_given(part: Any, trees: set[Path]) -> Iterable[tuple[Path, Any]]:
    """Flattens a state; at the paths of `trees` a nested dict is the value of a Variable."""
    if isinstance(part, FlatState):
        return part
    if not isinstance(part, Mapping):
        raise StructureError(
            f"expected a State or a nested dict, found a {type(part).__name__}: "
            "`nnx.merge(graphdef, state)`"
        )
    return flatten_until(part, trees.__contains__)


def build(graphdef: GraphDef, leaves: Sequence[Any], *, copy: bool = True) -> Any:
    """Makes the object of a GraphDef from Variables or plain values in the order of the walk."""
    assembly = assembly_of(graphdef)
    if copy and assembly.has_variables_alone and all(map(is_variable, leaves)):
        return assembly.build(copies_of(leaves))
    pairs = zip(assembly.leaves, leaves, strict=True)
    return assembly.build([own_leaf(record, leaf, copy) for record, leaf in pairs])


def own_leaf(record: VariableDef | ArrayDef, leaf: Any, copy: bool) -> Any:
    if isinstance(record, ArrayDef):
        return leaf
    if not isinstance(leaf, Variable):
        return make_variable(record, own_value(leaf))
    return leaf.copy() if copy else leaf


@overload
def merge(
    graphdef: GraphDef[N],
    /,
    *states: Any,
    copy: bool = True,
    recreate_variables: bool | None = None,
) -> N: ...
@overload
def merge(
    graphdef: Any, /, *states: Any, copy: bool = True, recreate_variables: bool | None = None
) -> Any: ...
@boundary
def merge(
    graphdef: Any, /, *states: Any, copy: bool = True, recreate_variables: bool | None = None
) -> Any:
    """Makes an object from its structure and its Variables; the inverse of `split`.

    The object has Variables of its own around the same arrays: changing it never changes the
    object that was split.

    Args:
      graphdef: from `split`; or a `GraphState`, which holds both.
      *states: States, pure dicts, or one flat list of leaves sorted by path.
      copy: False to make the States' own Variables part of the new object.
      recreate_variables: the same option under the name that `unflatten` uses.

    Returns:
      A new object.

    Raises:
      StructureError: listing the paths that are missing or unexpected.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> same = nnx.merge(*nnx.split(model))
      >>> same is model, same.kernel[...] is model.kernel[...]
      (False, True)
    """
    if not isinstance(graphdef, GraphDef):
        if not isinstance(graphdef, GraphState):
            raise StructureError(
                f"expected a GraphDef, found a {type(graphdef).__name__}: "
                "`nnx.merge(*nnx.split(model))`"
            )
        states = (graphdef.state, *(s.state if isinstance(s, GraphState) else s for s in states))
        graphdef = graphdef.graphdef
    copy = copy if recreate_variables is None else recreate_variables
    return build(graphdef, leaves_for(graphdef, states), copy=copy)


@boundary
def clone(node: N, variables: bool = True, *, arrays: bool = True, graph: bool | None = None) -> N:
    """Copies an object, sharing and cycles included.

    Args:
      node: an object, or a pytree of objects.
      variables: False to keep the original's Variables in the copy.
      arrays: whether to copy the arrays too, such that no buffer is shared; False leaves the
        copy's Variables around the same arrays.
      graph: False to refuse shared references; None for the setting.

    Returns:
      A new object of the same structure.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> copy = nnx.clone(model)
      >>> copy.kernel[...] is model.kernel[...]
      False
    """
    content = take_apart(node, graph)
    leaves = content.leaves
    if variables and arrays:
        copies = copy_arrays([x._raw if isinstance(x, Variable) else x for x in leaves])
        if all(map(is_variable, leaves)):
            return assembly_of(content.graphdef).build(around(leaves, copies))
        pairs = zip(leaves, copies, strict=True)
        leaves = [x.copy(new) if isinstance(x, Variable) else new for x, new in pairs]
    return build(content.graphdef, leaves, copy=variables and not arrays)


@overload
def pop(node: Any, filter: Filter, /) -> State: ...
@overload
def pop(node: Any, first: Filter, second: Filter, /, *filters: Filter) -> tuple[State, ...]: ...
@boundary
def pop(node: Any, *filters: Filter) -> Any:
    """Removes the Variables that match from an object and returns them.

    A Variable that is met at several places is removed from all of them. Arrays that no Variable
    holds are removed as well, where a filter matches them.

    Args:
      node: an object, or a pytree of objects.
      *filters: which Variables; one State each.

    Returns:
      One State, or a tuple of one per filter.

    Raises:
      ValueError: without filters.
      StructureError: if what matches is an item of a tuple, which cannot lose it.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> model.sow(nnx.Intermediate, "activation", 1.0)
      True
      >>> nnx.pop(model, nnx.Intermediate).activation.value
      (1.0,)
    """
    if not filters:
        raise ValueError("pop needs at least one filter: `nnx.pop(model, nnx.Intermediate)`")
    groups = filter_flat(take_apart(node).items(), filters)
    found = [pair for group in groups for pair in group]
    taken = {id(leaf) for _, leaf in found if isinstance(leaf, Variable)}
    arrays = {path for path, leaf in found if not isinstance(leaf, Variable)}
    table = Table()
    record = Flattener(table).flatten(node)
    _check_removable(record, table, taken, arrays, type(node).__name__)
    removals = [
        (
            container,
            [
                key
                for key, child in items_of(container)
                if id(child) in taken or (*spot.path, key) in arrays
            ],
        )
        for container, spot in zip(table.objects, table.spots, strict=True)
        if not isinstance(container, Variable)
    ]
    for container, keys in removals:
        if keys and isinstance(container, Pytree):
            check_object_write(container, keys[0])
    for container, keys in removals:
        for key in reversed(keys):
            _remove(container, key)
    states = tuple(from_flat_state(group) for group in groups)
    return states[0] if len(states) == 1 else states


def _check_removable(
    root: Record, table: Table, taken: set[int], arrays: set[Path], name: str
) -> None:
    """Raises if something to be taken is held by what cannot lose it."""

    def holders() -> Iterable[tuple[Path, Any, Record | None]]:
        yield (), root, None
        for path, holder in iter_records(root):
            for key, child in children_of(holder):
                yield (*path, key), child, holder

    for path, record, holder in holders():
        if isinstance(holder, NodeDef):
            continue
        is_object = isinstance(record, (VariableDef, Ref))
        if id(table.objects[record.index]) in taken if is_object else path in arrays:  # type: ignore[union-attr]
            raise StructureError(
                f"{format_path(path, name)} matches, but what holds it (a tuple, or nothing) "
                "cannot lose it, and nothing was removed: hold it in an attribute, a list or a dict"
            )


def _remove(container: Any, key: Any) -> None:
    if _is_attribute(container, key):
        delattr(container, key)
    elif isinstance(container, Pytree):
        del container[key]  # type: ignore[attr-defined]  # of a List or Dict
    else:
        refill(container, [item for item in items_of(container) if item[0] != key])


def _is_attribute(container: Any, key: Any) -> bool:
    return isinstance(container, Pytree) and isinstance(key, str)


def find_duplicates(node: Any, /, *, only: Filter = ...) -> list[list[Path]]:
    """Lists groups of paths at which the same object or Variable is met.

    Args:
      node: an object, or a pytree of objects.
      only: which objects and Variables count.

    Example:
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
      >>> nnx.find_duplicates({"a": layer, "b": layer})
      [[('a',), ('b',)]]
    """
    flattener = Flattener()
    record = flattener.flatten(node)
    selected = to_predicate(only)
    paths: dict[int, list[Path]] = {}
    for path, r in iter_records(record):
        if isinstance(r, (Ref, NodeDef, VariableDef)):
            if selected(path, flattener.table.objects[r.index]):
                paths.setdefault(r.index, []).append(path)
    return [group for group in paths.values() if len(group) > 1]


def set_metadata(node: Any, /, *, only: Filter = Variable, **metadata: Any) -> None:
    """Sets metadata of the Variables that match, in place.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.set_metadata(model, only=nnx.Param, frozen=True)
      >>> model.kernel.frozen
      True
    """
    selected = to_predicate(only)
    for path, leaf in take_apart(node).items():
        if isinstance(leaf, Variable) and selected(path, leaf):
            leaf.set_metadata(**metadata)


def as_pure(tree: Any) -> Any:
    """Copies a pytree with every Variable replaced by its value.

    Example:
      >>> import weft as nnx
      >>> nnx.as_pure({"a": nnx.Param(1.0)})
      {'a': 1.0}
    """
    return jax.tree.map(pure_value, tree, is_leaf=is_variable)


pure = as_pure
