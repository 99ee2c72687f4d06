"""A GraphDef and a State in one value: `GraphState`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import jax.tree_util as jtu

from weft._core.errors import surface
from weft._graph.records import GraphDef
from weft._graph.state import (
    State,
    flatten_state,
    flatten_state_with_keys,
    unflatten_state,
)


class GraphState(MutableMapping[Any, Any]):
    """A State that knows its GraphDef: a mapping, and a pytree whose structure is static.

    Example:
      >>> import weft as nnx
      >>> unpacked = nnx.unpack(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> list(unpacked), nnx.merge(unpacked).out_features
      (['bias', 'kernel'], 3)
    """

    __slots__ = ("_graphdef", "_state")
    _graphdef: GraphDef
    _state: State

    def __init__(self, _graphdef: GraphDef, _state: State):
        object.__setattr__(self, "_graphdef", _graphdef)
        object.__setattr__(self, "_state", _state)

    @property
    def graphdef(self) -> GraphDef:
        """The structure."""
        return self._graphdef

    @property
    def state(self) -> State:
        """The Variables."""
        return self._state

    def __getitem__(self, key: Any) -> Any:
        return self._state[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._state[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._state[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in GraphState.__slots__:
            raise AttributeError(name)
        surface(self, name)
        return getattr(self._state, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._state[name] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __repr__(self) -> str:
        return f"GraphState({self._graphdef!r}, {self._state!r})"


def _flatten(unpacked: GraphState) -> tuple[list[Any], Any]:
    children, keys = flatten_state(unpacked._state)
    return children, (unpacked._graphdef, keys)


def _flatten_with_keys(unpacked: GraphState) -> tuple[list[tuple[Any, Any]], Any]:
    children, keys = flatten_state_with_keys(unpacked._state)
    return children, (unpacked._graphdef, keys)


def _unflatten(static: Any, children: Iterable[Any]) -> GraphState:
    return GraphState(static[0], unflatten_state(static[1], children))


jtu.register_pytree_with_keys(GraphState, _flatten_with_keys, _unflatten, _flatten)
