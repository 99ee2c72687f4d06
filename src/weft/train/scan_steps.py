"""Several steps in one call: a scan over a stack of batches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from weft._core.errors import StructureError
from weft._lift.jit.jit import jit
from weft._lift.loop import Carry, scan
from weft.train.whole import whole

P = ParamSpec("P")
R = TypeVar("R")


def scanned(step: Callable[P, R]) -> Callable[P, R]:
    """Makes a train step take a stack of batches and go through them, in one compiled call.

    For `train.Run(..., steps_per_call=10)`, whose batches are such stacks. A call of a small step
    costs more on the way to the device than there; so ten cost little more than one.

    Args:
      step: takes objects and, last, a batch; compiled or not. It changes the objects in place, and
        returns arrays.

    Returns:
      The function of the same objects and a batch whose arrays have a further first axis. What it
      returns has that axis too. It is compiled (`nnx.jit`). Arrays of other shapes are a
      `StructureError`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> from weft import train
      >>> def step(total, batch):
      ...     total[...] += batch.sum()
      ...     return {"total": total[...]}
      >>> total = nnx.Variable(jnp.array(0.0))
      >>> train.scanned(step)(total, jnp.ones((3, 4)))["total"]
      Array([ 4.,  8., 12.], dtype=float32)
    """

    def one(objects: tuple[Any, ...], batch: Any) -> tuple[tuple[Any, ...], Any]:
        return objects, step(*objects, batch)  # type: ignore[call-arg]

    @functools.wraps(step)
    def all_of_them(*arguments: Any) -> Any:
        *objects, batches = arguments
        _check_stack(batches)
        over = scan(one, in_axes=(Carry, 0), out_axes=(Carry, 0))
        return over(tuple(objects), batches)[1]

    return jit(all_of_them)  # type: ignore[return-value]


def _check_stack(batches: Any) -> None:
    """Raises StructureError unless the arrays of batches have one first axis of one length."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batches)]
    if len({shape[:1] for shape in shapes}) != 1 or shapes[0] == ():
        raise StructureError(
            "a step made by train.scanned takes a stack of batches, whose arrays all have one "
            f"further first axis; found arrays of the shapes {shapes}: such stacks come from "
            "`train.Run(..., steps_per_call=10)`"
        )


def check_multiple(name: str, value: int, steps_per_call: int) -> None:
    """Refuses a number of steps between which there are parts of a call.

    Raises:
      ValueError: naming the number.
    """
    if whole(name, value) % steps_per_call:
        raise ValueError(
            f"{name} must be a multiple of steps_per_call={steps_per_call}, as nothing happens "
            f"within a call; found {value}"
        )
