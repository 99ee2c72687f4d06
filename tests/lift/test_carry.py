"""Carries: their look, and where in them what comes out of a loop goes."""

import jax.numpy as jnp

import weft as nnx
from weft._graph.records import VariableDef
from weft._lift.carry import look_at


def test_the_look_of_a_carry_counts_from_zero():
    shared = nnx.Param(jnp.ones(2))
    tree = nnx.Variable({"a": jnp.zeros(3), "b": jnp.zeros(())})
    look = look_at({"x": 1.0, "pair": (shared, shared), "tree": tree})
    assert look.objects == [shared, tree]
    assert [len(leaves) for leaves in look.leaves] == [1, 2, 1]
    assert look.arrays == [shared[...], tree["a"], tree["b"], 1.0]
    first = look.record.children[0].children[0]
    assert isinstance(first, VariableDef)
    assert first.index == 0
    assert look_at([nnx.Param(1.0)]).record == look_at([nnx.Param(2.0)]).record


def test_an_array_at_several_places_of_the_carry():
    def body(i, carry):
        return carry[1], carry[1]

    assert nnx.fori_loop(0, 3, body, (1.0, 2.0)) == (2.0, 2.0)

    def swap(i, carry):
        a, b = carry
        return b, a

    assert nnx.fori_loop(0, 3, swap, (1.0, 2.0)) == (2.0, 1.0)


def test_values_exchanged_between_objects():
    def body(i, pair):
        a, b = pair
        a[...], b[...] = b[...], a[...]
        return pair

    a, b = nnx.Param(jnp.zeros(())), nnx.Param(jnp.ones(()))
    nnx.fori_loop(0, 3, body, (a, b))
    assert (a[...], b[...]) == (1.0, 0.0)


def test_a_variable_written_into_another():
    def body(i, carry):
        m, x = carry
        m["a"][...] = m["b"][...]
        m["b"][...] = x
        return m, x + 1.0

    model = nnx.Dict(a=nnx.Param(jnp.zeros(())), b=nnx.Param(jnp.ones(())))
    nnx.fori_loop(0, 3, body, (model, 5.0))
    assert (model["a"][...], model["b"][...]) == (6.0, 7.0)
