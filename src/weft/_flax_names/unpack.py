"""`unpack`: as `split`, with the GraphDef in each State."""

from __future__ import annotations

from typing import Any, overload

from weft._core.filters import Filter
from weft._graph.api import split
from weft._graph.graph_state import GraphState


@overload
def unpack(node: Any, filter: Filter = ..., /, *, graph: bool | None = None) -> GraphState: ...
@overload
def unpack(
    node: Any,
    first: Filter,
    second: Filter,
    /,
    *filters: Filter,
    graph: bool | None = None,
) -> tuple[GraphState, ...]: ...
def unpack(node: Any, *filters: Filter, graph: bool | None = None) -> Any:
    """As `split`, but each State carries the GraphDef.

    Returns:
      One GraphState, or a tuple of one per filter.

    Example:
      >>> import weft as nnx
      >>> params, rest = nnx.unpack(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), nnx.Param, ...)
      >>> nnx.merge(params, rest).num_features
      2
    """
    graphdef, *states = split(node, *filters, graph=graph)
    unpacked = tuple(GraphState(graphdef, state) for state in states)
    return unpacked[0] if len(unpacked) == 1 else unpacked
