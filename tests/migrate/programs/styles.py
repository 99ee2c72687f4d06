"""Whole lines with their imports, flax by a name of its own, annotations in texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_type_hints

import flax as fx
import flax.nnx
import jax.numpy as jnp

if TYPE_CHECKING: from flax.nnx import State

try: import flax.nnx as maybe
except ImportError: maybe = None

def relu(): from flax import nnx, struct; return nnx.relu, struct.dataclass

class Kept: x = 1; from flax import nnx


def total(model: "flax.nnx.Module", state: State | None = None) -> "list[fx.nnx.Param]":
    return [value for _, value in flax.nnx.to_flat_state(flax.nnx.state(model, fx.nnx.Param))]


def same(model: "flax.nnx.Module") -> "fx.nnx.Module": return model


model = fx.nnx.Sequential(maybe.Linear(2, 3, rngs=flax.nnx.Rngs(0)), relu()[0])
print([hint is maybe.Module for hint in get_type_hints(same).values()])
print(f"{sum(value.sum() for value in total(model)):.5f} {model(jnp.ones((1, 2))).sum():.5f}")
print(Kept.nnx is maybe, fx.traverse_util.flatten_dict({"a": {"b": 1}}))
