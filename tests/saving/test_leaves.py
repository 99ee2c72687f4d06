"""Objects as leaves by path, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._saving.leaves import Objects, resolve


def test_leaves_and_what_is_shared():
    layer = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
    found = Objects({"b": [layer], "a": layer, "n": nnx.Variable({"x": (1, jnp.ones(2))})})
    assert list(found.leaves) == [("a", "kernel"), ("n", "x", 0), ("n", "x", 1)]
    assert found.shared == {("b", 0): ("a",)}
    assert resolve(("b", 0, "kernel"), found.shared) == ("a", "kernel")
    assert resolve(("a",), found.shared) == ("a",)


def test_some_leaves_are_written():
    nested = nnx.Variable({"x": [jnp.ones(2), jnp.ones(3)]})
    plain = {"y": np.ones(2)}
    found = Objects({"nested": nested, "plain": plain})
    found.write({("nested", "x", 1): jnp.zeros(3), ("plain", "y"): np.zeros(2)})
    assert (nested.value["x"][0] == 1).all() and (nested.value["x"][1] == 0).all()
    assert (plain["y"] == 0).all()
    with pytest.raises(nnx.StructureError):
        found.write({("nested", "x", 1): jnp.zeros(3), ("plain", "y"): np.zeros(5)})


def test_numbers_outside_of_variables_are_found():
    objects = {"a": {"b": 3, "c": [np.float32(1), "x"]}, "m": nnx.Dict(n=3), "v": nnx.Variable(3)}
    assert Objects(objects).stray() == [("a", "b"), ("a", "c", 0), ("a", "c", 1)]
    assert Objects({"x": jnp.ones(1), "y": [jnp.ones(1)]}).fixed() == ["x"]


def test_abstract_leaves_that_have_a_place_keep_it():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
    abstract = jax.ShapeDtypeStruct((2,), jnp.float32, sharding=place)
    found = Objects({"x": nnx.Param(abstract), "y": nnx.Param(jnp.ones(2))})
    assert found.placed()[("x",)].sharding == place
