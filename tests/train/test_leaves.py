"""Leaves by path, whatever the tree."""

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft.train.leaves import by_path, raw_value, strip


@pytest.fixture
def model():
    return nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))


PATHS = {
    ("layers", 0, "kernel"),
    ("layers", 0, "bias"),
    ("layers", 1, "scale"),
    ("layers", 1, "bias"),
}


@pytest.mark.parametrize(
    "convert",
    [
        lambda model: model,
        lambda model: nnx.state(model, nnx.Param),
        lambda model: nnx.to_pure_dict(nnx.state(model, nnx.Param)),
        lambda model: nnx.as_pure(nnx.state(model, nnx.Param)),
        lambda model: jax.tree.map(lambda x: x, model),
    ],
    ids=["object", "State", "dict", "State of arrays", "copy"],
)
def test_same_paths_for_every_kind_of_tree(model, convert):
    assert by_path(convert(model), only=nnx.Param).keys() == PATHS


def test_containers_of_objects(model):
    found = by_path({"a": [model]}, only=nnx.BatchStat)
    assert found.keys() == {("a", 0, "layers", 1, "mean"), ("a", 0, "layers", 1, "var")}
    assert found["a", 0, "layers", 1, "mean"] is model.layers[1].mean


def test_leaves_of_objects_are_their_own_variables(model):
    assert by_path(model)["layers", 0, "kernel"] is model.layers[0].kernel


def test_strip_and_raw_value():
    double = lambda variable, value: 2 * value  # noqa: E731
    hooked = nnx.Param(jnp.ones(()), on_get_value=(double,))
    assert raw_value(hooked) == 1.0 and raw_value(3) == 3
    assert strip({"a": [hooked], "b": 2}) == {"a": [1.0], "b": 2}
