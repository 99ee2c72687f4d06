"""Sides: what of an object is static is told apart, shared where it may be, and no more kept."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from tests.object.objects import OBJECTS, VALUES, Annotated, Box, Config, closure
from weft._object.layout import MOST, layout_of
from weft._object.protocol import flatten


def test_values_of_other_types_stay_apart() -> None:
    names = [name for name in OBJECTS if name in VALUES]
    treedefs = [jax.tree.structure(OBJECTS[name]) for name in names]
    for i, treedef in enumerate(treedefs):
        alike = [names[j] for j, other in enumerate(treedefs) if treedef == other]
        assert alike == [names[i]] or {"array", "NumPy"} >= {*alike}
    assert "Side(children=('w',), statics={'size': 3, 'x': 1}, marks={})" in repr(treedefs)


CHANGES: dict[str, Any] = {
    "static list": lambda x: x.append(3),
    "static dict": lambda x: x.update(b=1),
    "config": lambda x: setattr(x, "rate", 2.0),
    "set": lambda x: x.add(3),
    "list": lambda x: x.append("more"),
    "dict": lambda x: x.update(c=nnx.Param(1.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_in_place_are_seen(name: str) -> None:
    traces: list[int] = []
    f = jax.jit(lambda m: (traces.append(1), m.w.value)[1])
    obj = Box(x=copy.copy(VALUES[name]), w=nnx.Param(1.0))
    before = jax.tree.structure(obj)
    f(obj), f(obj)
    CHANGES[name](obj.x)
    f(obj), f(obj)
    assert len(traces) == 2
    assert jax.tree.structure(obj) != before


def test_objects_keep_values_of_their_own() -> None:
    for make in (Config, list, lambda: {"a": 1}, lambda: closure(1.0)):
        a, b = Box(x=make(), w=jnp.ones(1)), Box(x=make(), w=jnp.ones(1))
        jax.tree.leaves(a)
        assert jax.tree.map(lambda x: x, b).x is b.x
        assert jax.tree.map(lambda x: x, a).x is a.x


def test_equal_objects_have_one_side_and_one_trace() -> None:
    a, b = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(2, 3, rngs=nnx.Rngs(1))
    assert flatten(a)[1] is flatten(b)[1]
    traces = []
    f = jax.jit(lambda m: (traces.append(1), m.kernel[...])[1])
    f(a), f(b), f(jax.tree.map(lambda x: x, a))
    a.use_bias = 1
    f(a)
    assert len(traces) == 2


def test_what_is_known_is_bounded_and_keeps_nothing_alive() -> None:
    class Net(nnx.Module):
        pass

    class Held:
        pass

    def make(held: Any) -> Any:
        return lambda x: held

    held = Held()
    gone = weakref.ref(held)
    net = Net()
    net.w, net.f = nnx.Param(1.0), make(held)
    jax.tree.leaves(net), jax.tree.leaves(net)
    del net, held
    gc.collect()
    assert gone() is None
    for i in range(3 * MOST):
        net = Net()
        net.size, net.rate, net.shape = i, i / 2, (i, i)
        jax.tree.leaves(net)
    layout = layout_of(net)
    assert layout is not None and len(layout.flat._sides) <= MOST
    for i in range(3 * MOST):
        jax.tree.leaves(nnx.List([jnp.ones(1)] * i))
    assert len(nnx.List._pytree_layouts) <= MOST


def test_marks_are_part_of_the_side() -> None:
    assert jax.tree.structure(Box(x=nnx.data(1.0))) != jax.tree.structure(Box(x=jnp.ones(())))
    new = jax.tree.map(lambda x: x + 1, Annotated(1.0))
    assert new.scale == 2.0 and new._pytree_marks == {"scale": True, "table": False}
