"""EMA: an exponential moving average of the Variables of a model."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from weft._core.errors import StructureError
from weft._core.filters import Filter
from weft._core.path import format_path
from weft._graph import State, from_flat_state, merge, split, to_flat_state
from weft._module import Pytree, data
from weft._variable.variable import Variable, raw_value
from weft.train.leaves import by_path

A = TypeVar("A")


class EMA(Pytree):
    """Keeps an exponential moving average of a model's Variables (Polyak averaging).

    `average = decay * average + (1 - decay) * value` at each update, starting at the values given
    (Polyak and Juditsky, 1992, "Acceleration of stochastic approximation by averaging"). It is
    computed in float32 or wider, since in low precision steps of 1 - decay are too small to count.
    Counts, keys and other values that are no floating point or complex numbers have no average; the
    model keeps its own.

    Attributes:
      params: the State of averages, in Variables of their own, of the dtypes of the values.
      wide: the State of those of them that are of low precision, in float32.
      decay: the weight of the past.
      filter: which Variables are averaged.

    Args:
      params: a model, or a State of its Variables.
      decay: the weight of the past, from 0 (follow at once) to 1 (never move).
      only: a filter for the Variables to average.
      graph: False to refuse shared references; None for the setting.

    Raises:
      ValueError: if `decay` is out of range, or `only` selects nothing that has an average.
      TypeError: if something selected is an array outside any Variable.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> ema = nnx.EMA(model, decay=0.9, only=nnx.Param)
      >>> model.bias[...] += 1.0
      >>> ema.update(model)
      >>> averaged = ema.apply_to(model)
      >>> [round(float(x), 6) for x in averaged.bias]
      [0.1, 0.1, 0.1]
    """

    def __init__(self, params: Any, decay: float, *, only: Filter = ..., graph: bool | None = None):
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be between 0 and 1, found {decay!r}: try decay=0.999")
        self.graph = graph
        self.decay = decay
        self.filter = only
        averaged = {
            path: leaf
            for path, leaf in by_path(params, only=only, graph=graph).items()
            if _moves(leaf)
        }
        for path, leaf in averaged.items():
            if not isinstance(leaf, Variable):
                raise TypeError(
                    f"EMA averages Variables, found a plain {type(leaf).__name__} at "
                    f"{format_path(path)}: wrap it, `nnx.Param(...)`, or narrow the filter, such "
                    "as `only=nnx.Param`"
                )
        if not averaged:
            raise ValueError(
                f"only={only!r} selects no Variable of floating point numbers: give a type that "
                "the model holds, such as `only=nnx.Param`"
            )
        own = {path: leaf.copy(jnp.array(leaf.get_raw_value())) for path, leaf in averaged.items()}
        self.params = data(from_flat_state(own))
        widened = {path: _widened(average.get_raw_value()) for path, average in own.items()}
        self.wide = data(
            from_flat_state(
                {
                    path: own[path].copy(value)
                    for path, value in widened.items()
                    if value.dtype != own[path].get_raw_value().dtype
                }
            )
        )

    def update(self, updates: Any) -> None:
        """Moves the averages towards the values of a model.

        Args:
          updates: the model, or a State of its Variables; what is not averaged is left out.

        Raises:
          StructureError: if Variables are missing or of another shape; nothing is written then.
        """
        averages = dict(to_flat_state(self.params))
        given = by_path(updates, only=self.filter, graph=self.graph)
        faults = [f"missing: {format_path(path)}" for path in averages if path not in given]
        for path, average in averages.items():
            if path in given and jnp.shape(given[path]) != average.get_raw_value().shape:
                faults.append(
                    f"{format_path(path)}: expected shape {average.get_raw_value().shape}, "
                    f"found {jnp.shape(given[path])}"
                )
        if faults:
            raise StructureError(
                "the values do not fit the averages:\n  " + "\n  ".join(faults) + "\nupdate with "
                "the model that the EMA was made for: `ema.update(model)`"
            )
        wide = dict(to_flat_state(self.wide))
        moved = {}
        for path, average in averages.items():
            old = _widened(average.get_raw_value())
            if path in wide:  # unless somebody has written the average since
                kept, rounded = wide[path].get_raw_value(), average.get_raw_value()
                old = jnp.where(kept.astype(rounded.dtype) == rounded, kept, old)
            new = jnp.asarray(raw_value(given[path])).astype(old.dtype)
            moved[path] = self.decay * old + (1 - self.decay) * new
        for path, value in moved.items():
            averages[path].set_raw_value(value.astype(averages[path].get_raw_value().dtype))
            if path in wide:
                wide[path].set_raw_value(value)

    def apply_to(self, model: A) -> A:
        """Returns the model with the averages in the place of its Variables.

        Args:
          model: the model, or a State; it is not changed.

        Returns:
          A new object of the same structure. It holds the very Variables of `params`, so it
          follows later updates, and for the rest the very Variables of `model`.

        Raises:
          StructureError: if the model lacks a Variable that is averaged.
        """
        averages = dict(to_flat_state(self.params))
        if isinstance(model, State):
            graphdef, own = None, dict(to_flat_state(model))
        else:
            graphdef, own_state = split(model, graph=self.graph)
            own = dict(to_flat_state(own_state))
        if absent := [format_path(path) for path in averages if path not in own]:
            raise StructureError(
                f"the model lacks Variables that are averaged: {', '.join(absent)}; give the model "
                "that the EMA was made for: `ema.apply_to(model)`"
            )
        joined = from_flat_state({path: averages.get(path, leaf) for path, leaf in own.items()})
        result: Any = joined if graphdef is None else merge(graphdef, joined, copy=False)
        return result


def _moves(leaf: Any) -> bool:
    """Says whether a leaf holds floating point or complex numbers, which have an average."""
    dtype = getattr(raw_value(leaf), "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _widened(value: jax.Array) -> jax.Array:
    """Returns numbers in float32 or wider."""
    with jax.numpy_dtype_promotion("standard"):
        return value.astype(jnp.promote_types(value.dtype, jnp.float32))
