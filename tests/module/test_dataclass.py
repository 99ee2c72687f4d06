"""Dataclasses that are objects."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._object.pytree import blank


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


@dataclasses.dataclass
class Generated(nnx.Module):
    weight: Any


@dataclasses.dataclass(unsafe_hash=True, order=True)
class Hashed(Generated):
    name: str = "x"


@dataclasses.dataclass(frozen=True)
class FrozenOne(nnx.Pytree):
    weight: Any


@nnx.dataclass(order=True)
class Ordered(nnx.Module):
    weight: Any


class Derived(FrozenOne):
    """A class whose base compares by its fields, and has no instance of its own."""


@dataclasses.dataclass
class Own(nnx.Module):
    """Compares as it says itself."""

    weight: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and bool((self.weight == other.weight).all())

    def __hash__(self) -> int:
        return 7


@pytest.mark.parametrize("kind", [Generated, Hashed, Derived, FrozenOne, Ordered])
def test_they_compare_by_identity(kind: Any) -> None:
    a, b = kind(jnp.ones(2)), kind(jnp.ones(2))
    assert a == a and a != b
    assert not a == b
    assert {a: 1, b: 2} == {b: 2, a: 1}
    assert hash(a) == object.__hash__(a)
    assert [b, a].index(a) == 1
    twin = jax.tree.map(lambda x: x, a)
    assert twin != a and hash(twin) == object.__hash__(twin)


def test_a_comparison_of_their_own_stays() -> None:
    a, b = Own(jnp.ones(2)), Own(jnp.ones(2))
    assert a == b and a != Own(jnp.zeros(2))
    assert hash(a) == 7
    assert Hashed(1) < Hashed(2)


def test_a_class_that_is_first_met_by_pickling() -> None:
    @dataclasses.dataclass
    class Late(nnx.Module):
        weight: Any

    new = blank(Late)
    assert new == new != blank(Late)
    assert {new}
