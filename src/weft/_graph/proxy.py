"""Calling a model that is held as a GraphDef and States.

A *proxy* stands for a part of the model: attributes and items of a proxy are proxies of the parts
below, and calling one merges the model and calls that part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from weft._graph.api import merge, split
from weft._graph.records import GraphDef, N
from weft._graph.state import State

PureState = tuple[GraphDef[N], State]


def _whole(model: Any) -> Any:
    """Finds the model itself."""
    return model


@dataclasses.dataclass(frozen=True)
class CallableProxy:
    """A part of a model that is merged when it is called; the states are not changed.

    Attributes:
      callable: is called with a function that finds the part in the model, and with the arguments.
      accessor: finds the part.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.call(nnx.split(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))))
      >>> y, (graphdef, state) = model.layers[0](jnp.ones((1, 2)))
      >>> y.shape
      (1, 3)
    """

    callable: Callable[..., Any]
    accessor: Callable[[Any], Any] = _whole

    def __getattr__(self, name: str) -> CallableProxy:
        if name.startswith("__"):
            raise AttributeError(name)
        return CallableProxy(self.callable, lambda model: getattr(self.accessor(model), name))

    def __getitem__(self, key: Any) -> CallableProxy:
        return CallableProxy(self.callable, lambda model: self.accessor(model)[key])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.callable(self.accessor, *args, **kwargs)


def apply(self: GraphDef, state: Any, *states: Any, graph: bool | None = None) -> CallableProxy:
    """Returns a proxy of the model that a GraphDef and States make up; see `call`."""

    def call_part(accessor: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Any:
        model = merge(self, state, *states)
        return accessor(model)(*args, **kwargs), split(model, graph=graph)

    return CallableProxy(call_part)


GraphDef.apply = apply


def call(graphdef_state: tuple[GraphDef[Any], *tuple[State, ...]], /) -> CallableProxy:
    """Calls a method of a model that is held as a GraphDef and a State, purely.

    Args:
      graphdef_state: from `split`; further States may follow.

    Returns:
      A proxy of the model. Its attributes and items are proxies of submodules and methods;
      calling one returns `(output, (graphdef, state))` of the model after the call.

    Example:
      >>> import weft as nnx
      >>> class Counter(nnx.Module):
      ...     def __init__(self):
      ...         self.count = nnx.Variable(0)
      ...     def add(self, n):
      ...         self.count.value += n
      ...         return self.count.value
      >>> before = nnx.split(Counter())
      >>> total, after = nnx.call(before).add(2)
      >>> total, nnx.merge(*after).count.value, nnx.merge(*before).count.value
      (2, 2, 0)
    """
    return apply(*graphdef_state)
