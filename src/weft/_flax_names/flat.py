"""Objects as a GraphDef and one flat list: `flatten` and `unflatten`."""

from __future__ import annotations

from typing import Any, Literal, overload

from weft._graph.api import N, build, leaves_for, take_apart
from weft._graph.records import GraphDef
from weft._graph.state import FlatState


def _refuse_indices(**indices: Any) -> None:
    for name, value in indices.items():
        if value is not None:
            raise ValueError(
                f"{name}= is not supported: an object has one index, which GraphDefs hold. To "
                "take several objects apart together use `with nnx.split_context() as ctx:`"
            )


@overload
def flatten(
    node: N,
    /,
    *,
    with_paths: Literal[True] = True,
    ref_index: None = None,
    ref_outer_index: None = None,
    graph: bool | None = None,
) -> tuple[GraphDef[N], FlatState]: ...
@overload
def flatten(
    node: N,
    /,
    *,
    with_paths: bool,
    ref_index: None = None,
    ref_outer_index: None = None,
    graph: bool | None = None,
) -> tuple[GraphDef[N], Any]: ...
def flatten(
    node: Any,
    /,
    *,
    with_paths: bool = True,
    ref_index: None = None,
    ref_outer_index: None = None,
    graph: bool | None = None,
) -> tuple[GraphDef, Any]:
    """Takes an object apart into its structure and a flat sequence of its Variables.

    Args:
      node: an object, or a pytree of objects.
      with_paths: False for a list of Variables, sorted by path, in place of a FlatState.
      ref_index: None.
      ref_outer_index: None.
      graph: False to refuse shared references; None for the setting.

    Returns:
      `(graphdef, flat_state)` or `(graphdef, leaves)`.

    Raises:
      ValueError: for an index map.

    Example:
      >>> import weft as nnx
      >>> graphdef, flat = nnx.flatten(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> flat.paths
      (('bias',), ('kernel',))
    """
    _refuse_indices(ref_index=ref_index, ref_outer_index=ref_outer_index)
    content = take_apart(node, graph)
    flat = FlatState(content.items())
    return content.graphdef, flat if with_paths else flat.leaves


def unflatten(
    graphdef: GraphDef[N],
    state: Any,
    /,
    *,
    index_ref: None = None,
    outer_index_outer_ref: None = None,
    copy_variables: bool = False,
    recreate_variables: bool = True,
) -> N:
    """Makes an object of its structure and flat Variables; the inverse of `flatten`.

    Args:
      graphdef: the structure.
      state: a FlatState, a State, or a list of Variables or values sorted by path.
      index_ref: None.
      outer_index_outer_ref: None.
      copy_variables: True to give the object Variables of its own, like `recreate_variables`.
      recreate_variables: False to make the given Variables part of the object.

    Returns:
      A new object.

    Raises:
      StructureError: listing the paths that are missing or unexpected.
      ValueError: for an index map.

    Example:
      >>> import weft as nnx
      >>> graphdef, leaves = nnx.flatten(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), with_paths=False)
      >>> nnx.unflatten(graphdef, leaves).out_features
      3
    """
    _refuse_indices(index_ref=index_ref, outer_index_outer_ref=outer_index_outer_ref)
    leaves = leaves_for(graphdef, (state,))
    return build(graphdef, leaves, copy=copy_variables or recreate_variables)
