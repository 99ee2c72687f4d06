"""TrainState: model, parameters and optimizer state as one immutable pytree, without Variables.

It is the functional counterpart of `Optimizer`: every step returns a new record, so it goes through
`jax.jit`, `jax.lax.scan` and any other JAX transformation as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax

from weft._graph import GraphDef, State
from weft._graph.proxy import apply
from weft.train.opt_state import optax_promotion

M = TypeVar("M")

_STATIC = {"pytree_node": False}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
@dataclasses.dataclass(frozen=True)
class TrainState(Generic[M]):
    """A model's GraphDef, its parameters, the optimizer state and the step count.

    Subclasses may add annotated fields, such as a State of batch statistics; they become frozen
    dataclasses and pytrees by themselves. A field made with
    `dataclasses.field(metadata={"pytree_node": False})` is static.

    Attributes:
      graphdef: the structure of the model; static.
      params: the State of parameters that `tx` optimizes.
      opt_state: the state of `tx`.
      step: the number of updates made, an integer scalar.
      tx: the Optax transformation; static.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import weft as nnx
      >>> graphdef, params = nnx.split(nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
      >>> ts = nnx.TrainState.create(graphdef, params=params, tx=optax.sgd(0.1))
      >>> def loss(params):
      ...     out, _ = ts.apply(params)(jnp.ones((1, 2)))
      ...     return out.sum()
      >>> ts = ts.apply_gradients(jax.grad(loss)(ts.params))
      >>> int(ts.step)
      1
    """

    graphdef: GraphDef[M] = dataclasses.field(metadata=_STATIC)
    params: State
    opt_state: optax.OptState
    step: jax.Array
    tx: optax.GradientTransformation = dataclasses.field(metadata=_STATIC)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)
        _register(cls)

    @classmethod
    def create(
        cls,
        graphdef: GraphDef[M],
        *,
        params: State,
        tx: optax.GradientTransformation,
        step: int = 0,
        **kwargs: Any,
    ) -> Self:
        """Makes a TrainState with a fresh optimizer state.

        Args:
          graphdef: the structure of the model, from `nnx.split`.
          params: the State of parameters.
          tx: an Optax transformation.
          step: the step to count from.
          **kwargs: the fields that a subclass adds.

        Returns:
          The TrainState.
        """
        with optax_promotion():
            opt_state = tx.init(params)
        return cls(
            graphdef=graphdef,
            params=params,
            opt_state=opt_state,
            step=jnp.asarray(step),
            tx=tx,
            **kwargs,
        )

    def apply(self, state: State | str, *states: State | str) -> Any:
        """Returns a proxy of the model merged from states; calling it calls the model.

        Args:
          state: a State, or the name of a field that holds one.
          *states: further States or names, such that all Variables of the model are covered.

        Returns:
          A callable with the model's attributes and items for its own, so that submodules and
          methods can be called. A call returns the output and the `(GraphDef, State)` after it.

        Raises:
          ValueError: if a name is no field that holds a State.
        """
        return apply(self.graphdef, *map(self._resolve, (state, *states)))

    def apply_gradients(self, grads: State, **kwargs: Any) -> Self:
        """Returns the TrainState after one step of the optimizer.

        Args:
          grads: the gradients, of the structure of `params`.
          **kwargs: other fields to replace, such as new batch statistics.

        Returns:
          A new TrainState.
        """
        with optax_promotion():
            updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
            params = optax.apply_updates(self.params, updates)
        return self.replace(
            params=params,
            opt_state=opt_state,
            step=self.step + 1,
            **kwargs,
        )

    def replace(self, **updates: Any) -> Self:
        """Returns a copy with other values for the named fields."""
        return dataclasses.replace(self, **updates)

    def _resolve(self, state: State | str) -> Any:
        if not isinstance(state, str):
            return state
        value = getattr(self, state, None)
        if not isinstance(value, Mapping):
            held = [
                field.name
                for field in dataclasses.fields(self)
                if isinstance(getattr(self, field.name), Mapping)
            ]
            raise ValueError(
                f"{type(self).__name__} has no State named {state!r}; it holds {held}: write "
                f"`state.apply({', '.join(map(repr, held))})(x)`"
            )
        return value


def _register(cls: type[TrainState]) -> None:
    static = [f.name for f in dataclasses.fields(cls) if not f.metadata.get("pytree_node", True)]
    data = [f.name for f in dataclasses.fields(cls) if f.name not in static]
    jtu.register_dataclass(cls, data_fields=data, meta_fields=static)


_register(TrainState)
