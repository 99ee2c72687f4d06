"""Objects as JAX sees them: what is known of a layout gives what looking at all would give."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft as nnx
from tests.object.objects import OBJECTS, VALUES, Box
from weft._object.protocol import _flatten_items, flatten


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


def test_a_shared_object_is_flattened_once_per_occurrence() -> None:
    leaf = Box(w=nnx.Param(1.0))
    middle = Box(a=leaf, b=leaf)
    for obj in (Box(x=middle, y=middle, z=leaf), nnx.List([middle, middle, leaf])):
        for _ in range(3):
            assert jax.tree.leaves(obj) == [1.0] * 5


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
