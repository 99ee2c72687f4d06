"""Layouts: what is worked out once for many objects never goes wrong for one of them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import weft as nnx
from tests.graph.graphs import Box
from weft._graph.walk import Flattener
from weft._object.layout import layout_of


def record_of(value: Any) -> Any:
    return Flattener().flatten(Box(value=value))


EQUAL: list[Any] = [1, True, 1.0, 1 + 0j, (1,), (True,), (1.0,), 0.0, -0.0, "1", b"1", None, False]


def test_equal_values_of_other_types_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "weft._core.static._boxes", {}
    )  # an equal value met before may stand for one
    records = [record_of(value) for value in EQUAL]
    for i, record in enumerate(records):
        assert [record == other for other in records].index(True) == i
        assert record == record_of(EQUAL[i])
        assert record.children[0].value is EQUAL[i]


def test_types_as_values() -> None:
    kinds = [int, float, jnp.float32, jnp.bfloat16, nnx.Param, jnp.dtype("float32")]
    records = [record_of(kind) for kind in kinds]
    assert all(records.count(record) == 1 for record in records)


def test_functions_compare_by_identity_unless_a_library_made_them() -> None:
    def scaled(scale: float) -> Any:
        return lambda x: x * scale

    function = scaled(1.0)
    assert record_of(function) == record_of(function)
    assert record_of(function) != record_of(scaled(1.0))
    assert record_of(jax.nn.relu) == record_of(jax.nn.relu)
    assert record_of(jax.nn.relu) != record_of(jax.nn.gelu)
    assert record_of(optax.linear_schedule(1.0, 0.0, 2)) == record_of(
        optax.linear_schedule(1.0, 0.0, 2)
    )


def test_functions_are_not_kept_alive_by_their_defaults() -> None:
    array = jnp.ones(3)
    function = lambda x, table=array: x  # noqa: E731
    record_of(function)
    gone = weakref.ref(array)
    del function, array
    gc.collect()
    assert gone() is None


def test_objects_with_the_same_attributes_share_a_layout() -> None:
    assert layout_of(Box(a=1, b=nnx.Param(1.0))) is layout_of(Box(a=2, b=nnx.Param(2.0)))
    others = [Box(b=nnx.Param(1.0), a=1), Box(a=1, b=nnx.BatchStat(1.0)), Box(a=nnx.data(1), b=1)]
    layouts = [layout_of(Box(a=1, b=nnx.Param(1.0))), *map(layout_of, others)]
    assert len(set(map(id, layouts))) == 4
    assert layout_of(nnx.List([1])) is None


def test_a_class_that_becomes_a_pytree_later() -> None:
    class Point:
        def __init__(self, x: Any):
            self.x = x

    box = Box(point=Point(jnp.ones(1)))
    assert nnx.to_flat_state(nnx.state(box)).paths == ()
    jax.tree_util.register_pytree_node(Point, lambda p: ((p.x,), None), lambda _, c: Point(*c))
    box = Box(point=Point(jnp.ones(1)))
    assert len(nnx.to_flat_state(nnx.state(box)).paths) == 1


def test_many_layouts_and_values_are_forgotten() -> None:
    class Counter(nnx.Module):
        pass

    for i in range(300):
        counter = Counter()
        counter.step = i
        setattr(counter, f"name{i}", nnx.Param(1.0))
        assert nnx.to_flat_state(nnx.state(counter)).paths == ((f"name{i}",),)
    assert len(Counter._pytree_layouts) <= 64


@pytest.mark.parametrize("value", [frozenset({1}), {1, 2}, frozenset()])
def test_sets(value: Any) -> None:
    assert record_of(value) == record_of(type(value)(value))
    with pytest.raises(ValueError, match="set"):
        record_of(frozenset({Box(a=nnx.Param(1.0))}))
