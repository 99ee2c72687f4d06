"""The running JAX trace, under the name that code of the NNX API imports it from."""

from __future__ import annotations

from typing import Any

import jax.tree_util as jtu

from weft._core.trace import current as current_jax_trace


class TraceState:
    """Remembers the trace that it was made in; a JAX pytree without leaves.

    Example:
      >>> import jax
      >>> from weft.tracers import TraceState
      >>> outside = TraceState()
      >>> outside.is_valid(), jax.eval_shape(lambda: TraceState()) == outside
      (True, True)
    """

    __slots__ = ("jax_trace",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.jax_trace = current_jax_trace()

    def is_valid(self) -> bool:
        """Returns whether that trace is running."""
        return self.jax_trace == current_jax_trace()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TraceState) and self.jax_trace == other.jax_trace

    def __repr__(self) -> str:
        return f"TraceState(jax_trace={self.jax_trace!r})"

    def __reduce__(self) -> Any:
        return (TraceState, ())


jtu.register_pytree_node(TraceState, lambda state: ((), None), lambda aux, children: TraceState())
