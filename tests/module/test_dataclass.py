"""Dataclasses that are objects."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

import weft as nnx


@nnx.dataclass
class Scale(nnx.Module):
    factor: nnx.Data[float]
    weight: nnx.Param = nnx.data(default=None, kw_only=True)
    table: Any = nnx.static(default_factory=lambda: jnp.arange(2))
    name: str = "scale"

    def __call__(self, x: Any) -> Any:
        return x * self.factor


@nnx.dataclass(kw_only=True, eq=False)
class Options(nnx.Pytree):
    size: int = 1


def test_fields_and_marks() -> None:
    model = Scale(2.0, weight=nnx.Param(jnp.ones(1)))
    assert nnx.to_flat_state(nnx.state(model)).paths == (("factor",), ("weight",))
    assert [field.name for field in dataclasses.fields(model)] == [
        "factor",
        "weight",
        "table",
        "name",
    ]
    assert Scale(2.0).weight is None
    assert dataclasses.replace(model, factor=3.0).factor == 3.0
    assert model(2.0) == 4.0


def test_it_is_an_object_like_any_other() -> None:
    model = Scale(2.0)
    assert repr(model).startswith("Scale(")
    doubled = jax.tree.map(lambda x: x * 2, model)
    assert doubled.factor == 4.0
    nnx.jit(lambda m: setattr(m, "factor", m.factor + 1.0))(model)
    assert float(model.factor) == 3.0
    merged = nnx.merge(*nnx.split(model))
    assert type(merged) is Scale
    assert merged.name == "scale"


def test_options() -> None:
    assert Options(size=3).size == 3
    a, b = Options(size=1), Options(size=1)
    assert a != b
    assert len({a, b}) == 2
