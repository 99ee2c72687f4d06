"""What a case is, the table of all of them, and the objects they are tried on.

A case is a function of a `Run`. Those about objects are in `object_cases.py`, those about traces
and what JAX is given in `trace_cases.py`; importing these two fills the table.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx
from tests.laws.transforms import FULL, Function, Mode, Transform


class Run(NamedTuple):
    """A transform in a mode."""

    transform: Transform
    mode: Mode

    def __call__(self, body: Function) -> Function:
        return self.transform.wrap(body, **self.mode.options())


class Case(NamedTuple):
    name: str
    law: int
    check: Callable[[Run], None]
    modes: tuple[Mode, ...]


CASES: list[Case] = []


def case(law: int, *modes: Mode) -> Callable[[Function], Function]:
    """Adds a check to the table, under its own name in words."""

    def add(check: Function) -> Function:
        CASES.append(Case(check.__name__.replace("_", " "), law, check, modes or (FULL,)))
        return check

    return add


# -- the objects of the cases


class Box(nnx.Module):
    """A Module with the attributes it is given."""

    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)

    def count(self, x: Any) -> Any:
        self.calls[...] = self.calls[...] + 1.0
        return (self.w[...] * x).sum()


class Pair(typing.NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_pytree_with_keys_class
class Foreign:
    """A mutable class that only JAX knows."""

    def __init__(self, x: Any, label: str = "a"):
        self.x, self.label = x, label

    def tree_flatten_with_keys(self) -> Any:
        return [(jax.tree_util.GetAttrKey("x"), self.x)], self.label

    def tree_flatten(self) -> Any:
        return (self.x,), self.label

    @classmethod
    def tree_unflatten(cls, label: str, children: Any) -> Foreign:
        new = object.__new__(cls)
        (new.x,), new.label = children, label
        return new


def param(value: float = 1.0, size: int = 2) -> nnx.Param:
    return nnx.Param(jnp.full((size,), value))


def stat(value: float = 0.0) -> nnx.BatchStat:
    return nnx.BatchStat(jnp.full((), value))


def values_of(x: Any) -> list[float]:
    return np.asarray(x).ravel().tolist()
