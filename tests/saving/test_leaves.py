"""Objects as leaves by path, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
    paths = [path for path, _ in Objects(objects).stray("meta")]
    assert paths == [("a", "b"), ("a", "c", 0), ("a", "c", 1)]


def test_objects_of_which_nothing_would_be_saved_are_found():
    class Opaque:
        def __init__(self):
            self.weights = jnp.ones(2)

    a = nnx.Variable(jnp.ones(1))
    objects = {
        "function": nnx.relu,
        "tx": optax.sgd(0.1),
        "opaque": {"x": [Opaque()], "a": a},
        "layers": [a, nnx.relu],  # as part of something else a function is nothing to save
        "nothing": None,
        "empty": [],
        "stateless": nnx.Dropout(0.5),
    }
    found = dict(Objects(objects).stray("meta"))
    assert found.keys() == {("function",), ("tx",), ("opaque", "x", 0)}
    assert found["function",].startswith("a function, in which nothing can be saved: give models")
    assert found["opaque", "x", 0] == (
        "an Opaque, a class that cannot be looked into: make it an `nnx.Module` or a dataclass, or "
        "hold its arrays in a dict"
    )


def test_dicts_of_names_and_numbers_are_looked_into():
    objects = {"d": {0: nnx.Variable(jnp.ones(1)), "a": nnx.Variable(jnp.ones(1)), "n": 3}}
    assert [path for path, _ in Objects(objects).stray("meta")] == [("d", "n")]
    assert list(Objects(objects).leaves) == [("d", 0), ("d", "a")]


def test_a_container_that_holds_itself_is_looked_into_once():
    holder = [jnp.ones(1)]
    holder.append(holder)
    assert Objects({"x": holder}).fixed() == Objects({"x": holder}).stray("meta") == []


def test_arrays_that_cannot_be_changed_in_place_are_found():
    objects = {
        "x": jnp.ones(1),
        "list": [jnp.ones(1), (jnp.ones(1),)],
        "tuple": (jnp.ones(1), nnx.Variable(jnp.ones(1)), nnx.Dict(a=jnp.ones(1)), [jnp.ones(1)]),
        "adam": optax.scale_by_adam().init({"a": jnp.ones(1)}),
    }
    assert Objects(objects).fixed() == [("adam", "count"), ("tuple", 0), ("x",)]


def test_abstract_leaves_that_have_a_place_keep_it():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
    abstract = jax.ShapeDtypeStruct((2,), jnp.float32, sharding=place)
    found = Objects({"x": nnx.Param(abstract), "y": nnx.Param(jnp.ones(2))})
    assert found.placed()[("x",)].sharding == place
