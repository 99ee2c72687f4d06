"""Going over all objects of a graph, and rebuilding a graph from changed parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from weft._core.path import Path
from weft._graph.api import N, shares
from weft._graph.records import ArrayDef, NodeDef, Record, VariableDef, inside_first
from weft._graph.walk import Builder, Flattener
from weft._object.kinds import Kind, kind_of
from weft._object.pytree import Pytree
from weft._variable.variable import Variable


def _flatten(node: Any, graph: bool | None) -> tuple[Record, Flattener]:
    flattener = Flattener(share=shares(graph), root=type(node).__name__)
    return flattener.flatten(node), flattener


def iter_graph(node: Any, /, *, graph: bool | None = None) -> Iterator[tuple[Path, Any]]:
    """Yields (path, value) for every object, container, Variable and array, each once.

    What is inside comes before what it is in; the root comes last, with an empty path.

    Args:
      node: an object, or a pytree of objects.
      graph: False to refuse shared references; None for the setting.

    Example:
      >>> import weft as nnx
      >>> [path for path, _ in nnx.iter_graph(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))]
      [('bias',), ('kernel',), ()]
    """
    record, flattener = _flatten(node, graph)
    leaves = iter(flattener.entries)
    for path, part in inside_first(record):
        if isinstance(part, NodeDef):
            yield path, flattener.table.objects[part.index]
        elif isinstance(part, (VariableDef, ArrayDef)):
            yield path, next(leaves).value
        elif not path:
            yield path, node


def iter_children(node: Any, /, *, graph: bool | None = None) -> Iterator[tuple[Any, Any]]:
    """Yields (key, object) for the objects directly in a node, those in its containers included.

    The key of an object in a container is the path below the node.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
      >>> [key for key, _ in nnx.iter_children(model)]
      ['layers']
    """
    for path, value in iter_graph(node, graph=graph):
        if isinstance(value, Pytree) and len(path) == 1:
            yield path[0], value


def recursive_map(f: Callable[[Path, Any], Any], node: Any, /, *, graph: bool | None = None) -> Any:
    """Rebuilds a graph with `f(path, value)` in place of every object and leaf, innermost first.

    Args:
      f: returns what is to stand in place of the value. Objects handed to it are new ones; the
        Variables are the original's own.
      node: an object, or a pytree of objects.
      graph: False to refuse shared references; None for the setting.

    Returns:
      The new graph; the original is unchanged.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> double = lambda path, x: x.replace(x * 2) if isinstance(x, nnx.Param) else x
      >>> float(nnx.recursive_map(double, model).kernel[0, 0] / model.kernel[0, 0])
      2.0
    """
    record, flattener = _flatten(node, graph)
    entries = iter(flattener.entries)
    mapped = (NodeDef, VariableDef, ArrayDef)
    paths = iter([path for path, part in inside_first(record) if isinstance(part, mapped)])

    def leaf(record: VariableDef | None = None) -> Any:
        return f(next(paths), next(entries).value)

    return Builder(leaf, leaf, on_build=lambda index, new, items: f(next(paths), new)).build(record)


def map(
    f: Callable[[Path, Any], Any],
    node: N,
    /,
    *,
    graph: bool | None = None,
    recreate_variables: bool = True,
) -> N:
    """Applies `f(path, leaf)` to every Variable and array of a graph and returns a new graph.

    Args:
      f: returns the new leaf.
      node: an object, or a pytree of objects.
      graph: False to refuse shared references; None for the setting.
      recreate_variables: whether a Variable that `f` returns as it was is copied.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> float(nnx.map(lambda path, x: x.replace(x * 0), model).kernel[...].sum())
      0.0
    """

    def on_leaf(path: Path, value: Any) -> Any:
        if kind_of(value) in (Kind.OBJECT, Kind.NODE, Kind.INSTANCE):
            return value
        new = f(path, value)
        is_same = isinstance(new, Variable) and new is value
        return new.copy() if is_same and recreate_variables else new

    return recursive_map(on_leaf, node, graph=graph)
