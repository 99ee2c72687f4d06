"""`flatten` and `unflatten`: an object as a GraphDef and one flat sequence."""

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


@pytest.fixture
def model():
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    return nnx.Dict(b=layer, a=layer)


def test_with_and_without_paths(model):
    graphdef, flat = nnx.flatten(model)
    same, leaves = nnx.flatten(model, with_paths=False)
    assert flat.paths == (("a", "bias"), ("a", "kernel")) and same == graphdef
    assert leaves[0] is flat.leaves[0] is model.a.bias


@pytest.mark.parametrize("form", ["flat", "state", "leaves", "values"])
def test_unflatten_is_the_inverse(model, form):
    graphdef, flat = nnx.flatten(model)
    given = {
        "flat": flat,
        "state": nnx.state(model),
        "leaves": flat.leaves,
        "values": [v.value for v in flat.leaves],
    }[form]
    new = nnx.unflatten(graphdef, given)
    assert new.a is new.b and new.a.kernel is not model.a.kernel
    np.testing.assert_array_equal(new.a.kernel.value, model.a.kernel.value)


def test_variables_are_shared_on_demand(model):
    graphdef, flat = nnx.flatten(model)
    assert nnx.unflatten(graphdef, flat, recreate_variables=False).a.kernel is model.a.kernel
    copied = nnx.unflatten(graphdef, flat, copy_variables=True, recreate_variables=False)
    assert copied.a.kernel is not model.a.kernel


def test_errors(model):
    graphdef, flat = nnx.flatten(model)
    with pytest.raises(nnx.SharedReferenceError):
        nnx.flatten(model, graph=False)
    with pytest.raises(ValueError, match=r"ref_index= is not supported.*split_context"):
        nnx.flatten(model, ref_index={})
    with pytest.raises(ValueError, match="index_ref= is not supported"):
        nnx.unflatten(graphdef, flat, index_ref={})
    with pytest.raises(nnx.StructureError, match=r"missing: a\.kernel"):
        nnx.unflatten(graphdef, nnx.FlatState([(("a", "bias"), jnp.ones(3))]))
