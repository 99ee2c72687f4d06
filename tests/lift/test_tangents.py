"""The forms of tangents and gradients."""

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft._lift.tangents import leaves_by_path, match


class Model(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.array(2.0))
        self.layers = [nnx.Linear(1, 1, rngs=nnx.Rngs(0))]
        self.raw = jnp.array(3.0)


def test_the_gradient_of_each_kind_of_argument():
    def loss(model, variable, array, pair, nothing):
        return model.w * variable[...] * array * pair["v"][0] * model.raw

    args = (Model(), nnx.Param(jnp.array(3.0)), jnp.array(5.0), {"v": (jnp.array(7.0),)}, None)
    grads = nnx.grad(loss, argnums=(0, 1, 2, 3, 4))(*args)
    assert [type(g) for g in grads] == [nnx.State, nnx.Param, type(args[2]), dict, type(None)]
    assert grads[0]["w"][...] == 315.0
    assert sorted(nnx.to_flat_state(grads[0]).paths) == [
        ("layers", 0, "bias"),
        ("layers", 0, "kernel"),
        ("w",),
    ]
    assert (grads[1][...], grads[2]) == (210.0, 126.0)
    assert grads[3] == {"v": (90.0,)}


def test_raw_arrays_are_differentiated_where_a_filter_says_so():
    grads = nnx.grad(lambda m: m.w * m.raw, argnums=nnx.DiffState(0, nnx.PathContains("raw")))(
        Model()
    )
    assert nnx.to_pure_dict(grads) == {"raw": 2.0}


def test_arguments_that_are_not_differentiated_do_not_shift_the_others():
    a, b, c = nnx.Param(jnp.array(2.0)), nnx.Param(jnp.array(3.0)), nnx.Param(jnp.array(5.0))
    for options in ({}, {"graph_updates": False}):
        f = nnx.grad(lambda a, b, c: a * b**2 * c**3, argnums=(2, 0), **options)
        gc, ga = f({"v": a}["v"], nnx.Dict(v=b)["v"], c)
        assert (gc[...], ga[...]) == (1350.0, 1125.0)

    def loss(first, second):
        return first.w * second.w**2

    for options in ({}, {"graph_updates": False}):
        second = nnx.grad(loss, argnums=1, **options)(Model(), Model())
        value = second["w"] if isinstance(second, nnx.State) else second.w
        assert value[...] == 8.0


def test_pytree_valued_variables():
    variable = nnx.Param({"a": jnp.array(2.0), "b": jnp.array(3.0)})
    grads = nnx.grad(lambda m: m["v"]["a"] * m["v"]["b"] ** 2)(nnx.Dict(v=variable))
    assert grads["v"].get_value() == {"a": 9.0, "b": 12.0}


@pytest.mark.parametrize("how", ["state", "dict", "object", "flat array"])
def test_leaves_of_a_tangent_by_path(how):
    model = nnx.Dict(a=nnx.Param(1.0), b={"c": nnx.Param(2.0)})
    tangent = {
        "state": nnx.state(model),
        "dict": {"a": 1.0, "b": {"c": 2.0}},
        "object": model,
        "flat array": 1.0,
    }[how]
    expected = [("m",)] if how == "flat array" else [("m", "a"), ("m", "b", "c")]
    assert list(leaves_by_path(tangent, ("m",))) == expected


def test_matching_by_path():
    places = [(("m", "a"), [jnp.ones(2)]), (("x",), [jnp.ones(())])]
    ones = jnp.ones(2)
    assert match(places, {("m", "a"): ones}, "it has") == [[ones], None]
    with pytest.raises(nnx.StructureError, match=r"it has for m\.b, which the arguments do not"):
        match(places, {("m", "b"): ones}, "it has")
    with pytest.raises(nnx.StructureError, match=r"for x of shape \(2,\), expected \(\)"):
        match(places, {("x",): np.ones(2)}, "it has")
