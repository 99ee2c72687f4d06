"""Objects as JAX sees them: what is known of a layout gives what looking at all would give."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft as nnx
from weft._object.layout import MOST, layout_of
from weft._object.protocol import _flatten_items, flatten


class Box(nnx.Module):
    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)


@dataclasses.dataclass
class Config:
    rate: float = 1.0


class Annotated(nnx.Module):
    scale: nnx.Data[Any]
    table: nnx.Static[Any]

    def __init__(self, scale: Any = None) -> None:
        self.scale = scale
        self.table = np.arange(2)


def closure(scale: float) -> Any:
    return lambda x: x * scale


RNGS = nnx.Rngs(0)
VALUES: dict[str, Any] = {
    "array": jnp.ones(2),
    "NumPy": np.ones(2),
    "Variable": nnx.Param(jnp.ones(2), tag="a"),
    "object": Box(w=nnx.Param(1.0)),
    "class": nnx.Linear,
    "None": None,
    "True": True,
    "1": 1,
    "1.0": 1.0,
    "0.0": 0.0,
    "-0.0": -0.0,
    "nan": math.nan,
    "text": "text",
    "shape": (3, 3),
    "other shape": (True, 3),
    "dtype": np.dtype("float32"),
    "other dtype": np.dtype("bfloat16"),
    "scalar type": jnp.float32,
    "function": math.sqrt,
    "plain function": closure,
    "closure": closure(2.0),
    "config": Config(),
    "static list": [1, 2],
    "static dict": {"a": (1, "b")},
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "list": [jnp.ones(1), "text"],
    "dict": {"a": 2, "b": nnx.Param(1.0)},
    "tuple": (1, jnp.ones(1)),
    "transformation": optax.adam(0.1),
    "marked number": nnx.data(1.0),
    "marked None": nnx.data(None),
    "marked list": nnx.data([1.0, "a"]),
    "marked array": nnx.static(jnp.ones(2)),
    "marked text": nnx.static("a"),
}
OBJECTS: dict[str, Any] = {
    **{name: Box(x=value, w=nnx.Param(1.0), size=3) for name, value in VALUES.items()},
    **{
        type(x).__name__: x
        for x in (
            nnx.Linear(2, 3, rngs=RNGS),
            nnx.Conv(2, 3, (3, 3), rngs=RNGS),
            nnx.BatchNorm(2, rngs=RNGS),
            nnx.Embed(2, 3, rngs=RNGS),
            nnx.Dropout(0.1, rngs=RNGS),
            nnx.MultiHeadAttention(2, 4, rngs=RNGS),
            nnx.Sequential(nnx.relu, nnx.Linear(2, 2, rngs=RNGS)),
            nnx.List([1, nnx.Param(1.0)]),
            nnx.Dict(b=nnx.Param(1.0), a=2),
            Annotated(2.0),
            RNGS,
            RNGS.default,
        )
    },
    "Annotated without": Annotated(),
    "empty": Box(),
    "List of layers": nnx.List([Box(w=nnx.Param(1.0)), Box(w=nnx.Param(2.0))]),
    "empty List": nnx.List([]),
    "Optimizer": nnx.Optimizer(Box(w=nnx.Param(1.0)), optax.adam(0.1), wrt=nnx.Param),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_layout_gives_what_looking_gives(name: str) -> None:
    obj = OBJECTS[name]
    expected, expected_side = _flatten_items(obj)
    for _ in range(3):
        children, side = flatten(obj)
        assert len(children) == len(expected)
        for child, other in zip(children, expected, strict=True):
            # Containers are made anew, for JAX, each time.
            assert child is other or (child == other if type(child) is dict else child is not None)
        assert side == expected_side and hash(side) == hash(expected_side)
        assert side.blank.keys() == expected_side.blank.keys()
        assert list(side.statics) == list(expected_side.statics)
        for key, box in side.statics.items():
            assert box.value is expected_side.statics[key].value
    new = jax.tree.unflatten(jax.tree.structure(obj), jax.tree.leaves(obj))
    assert type(new) is type(obj)
    assert jax.tree.structure(new) == jax.tree.structure(obj)
    assert nnx.graphdef(new) == nnx.graphdef(obj)
    assert all(map(lambda a, b: a is b, jax.tree.leaves(new), jax.tree.leaves(obj)))


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


@pytest.mark.filterwarnings("ignore:an array takes the place of a Param")
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(VALUES))), max_size=8))
def test_histories(changes: list[tuple[str, str]]) -> None:
    obj = Box(a=1, w=nnx.Param(1.0))
    for name, value in changes:
        setattr(obj, name, VALUES[value])
        children, side = flatten(obj)
        expected, expected_side = _flatten_items(obj)
        assert len(children) == len(expected)
        assert side == expected_side


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


def test_a_shared_object_is_flattened_once_per_occurrence() -> None:
    leaf = Box(w=nnx.Param(1.0))
    middle = Box(a=leaf, b=leaf)
    for obj in (Box(x=middle, y=middle, z=leaf), nnx.List([middle, middle, leaf])):
        for _ in range(3):
            assert jax.tree.leaves(obj) == [1.0] * 5


def test_marks_are_part_of_the_side() -> None:
    assert jax.tree.structure(Box(x=nnx.data(1.0))) != jax.tree.structure(Box(x=jnp.ones(())))
    new = jax.tree.map(lambda x: x + 1, Annotated(1.0))
    assert new.scale == 2.0 and new._pytree_marks == {"scale": True, "table": False}


# -- whatever JAX puts in the place of data


OTHERS: dict[str, Any] = {
    "axis": 0,
    "text": "text",
    "object": object(),
    "shape": jax.ShapeDtypeStruct((2,), jnp.float32),
    "aval": jax.typeof(jnp.ones(2)),
    "True": True,
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", OBJECTS)
def test_a_treedef_gives_objects_of_that_treedef(name: str, other: str) -> None:
    treedef = jax.tree.structure(OBJECTS[name])
    leaves = [OTHERS[other]] * treedef.num_leaves
    for _ in range(2):
        made = jax.tree.unflatten(treedef, leaves)
        assert jax.tree.structure(made) == treedef
        assert all(x is y for x, y in zip(jax.tree.leaves(made), leaves, strict=True))
        made = jax.tree.map(lambda x: x, made)
        assert jax.tree.structure(made) == treedef
    again = jax.tree.map(lambda _, x: x, made, OBJECTS[name])
    assert flatten(again)[1] == flatten(OBJECTS[name])[1]
    assert nnx.graphdef(again) == nnx.graphdef(OBJECTS[name])


def test_nothing_in_the_place_of_data() -> None:
    box = Box(x=jnp.ones(2), items=[jnp.ones(1), "a"], w=nnx.Param(1.0))
    nothing = jax.tree.map(lambda x: None, box)
    assert nothing.x is nothing.w.value is None
    is_none = lambda x: x is None  # noqa: E731
    assert jax.tree.structure(nothing, is_leaf=is_none) == jax.tree.structure(box)
    assert len(jax.tree.leaves(nothing)) == 0
    whole = jax.tree.map(lambda x: 7, box, is_leaf=lambda x: isinstance(x, list))
    assert whole.items == 7
    assert len(jax.tree.leaves(whole)) == 3


def test_axes_in_the_form_of_a_model() -> None:
    box = Box(x=jnp.ones((3, 2)), w=nnx.Param(jnp.ones((3, 2))), size=3, items=[jnp.ones(3)])
    axes = jax.tree.map(lambda x: 0, box)
    assert axes.x == axes.items[0] == 0
    out = jax.vmap(lambda m: m.x + m.w[...] + m.items[0], in_axes=(axes,))(box)
    assert out.shape == (3, 2)
