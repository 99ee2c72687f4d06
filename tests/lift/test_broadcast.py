"""What `scan` is given for all iterations: it may be written, and goes from one to the next."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.lift.test_loop import Counter, error_of, scans_in, shapes

BROADCAST = {"length": 3, "in_axes": (nnx.Carry, None), "out_axes": nnx.Carry}


@pytest.mark.parametrize("mode", [{}, {"graph": False}, {"graph_updates": False}], ids=str)
def test_what_is_written_of_a_broadcast_object_is_carried(mode):
    def step(x, m):
        m.count[...] = m.count * 2.0 + 1.0
        return m.w * x + m.count

    model, by_hand = Counter(), Counter()
    x = nnx.scan(step, **BROADCAST, **mode)(jnp.ones(2), model)
    expected = jnp.ones(2)
    for _ in range(3):
        expected = step(expected, by_hand)
    np.testing.assert_array_equal(x, expected)
    assert model.count[...] == by_hand.count[...] == 7.0
    jitted = nnx.jit(nnx.scan(step, **BROADCAST, **mode))
    np.testing.assert_array_equal(jitted(jnp.ones(2), Counter()), expected)


def test_broadcast_streams_draw_apart():
    def step(x, dropout):
        return x, dropout(x)

    axes = {"in_axes": (nnx.Carry, None), "out_axes": (nnx.Carry, 0)}
    dropout, by_hand = (nnx.Dropout(0.5, rngs=nnx.Rngs(0)) for _ in range(2))
    _, ys = nnx.scan(step, length=3, **axes)(jnp.ones(16), dropout)
    expected = jnp.stack([by_hand(jnp.ones(16)) for _ in range(3)])
    np.testing.assert_array_equal(ys, expected)
    assert dropout.rngs.count[...] == 3


def test_gradients_through_what_is_broadcast_and_written():
    def loss(m, x):
        def step(x, m):
            m.total[...] = m.total + (m.w * x).sum()
            return m.w * x

        nnx.scan(step, **BROADCAST)(x, m)
        return m.total[...]

    def by_hand(w):
        return (w + w**2 + w**3).sum()

    model = Counter()
    model.total = nnx.BatchStat(jnp.zeros(()))
    model.w[...] = jnp.array([2.0, 3.0])
    grads = nnx.grad(loss, argnums=nnx.DiffState(0, nnx.Param))(model, jnp.ones(2))
    np.testing.assert_allclose(grads["w"], jax.grad(by_hand)(model.w[...]), rtol=1e-6)
    assert model.total[...] == by_hand(model.w[...])


def test_arrays_and_trees_that_are_broadcast_and_written():
    model = Counter()
    model.x, model.tree = jnp.zeros(()), nnx.Variable({"a": jnp.zeros(2), "b": jnp.ones(())})

    def step(x, m):
        m.x = m.x + 1.0
        m.tree["a"] = m.tree["a"] + m.tree["b"]
        return x

    nnx.scan(step, **BROADCAST)(1.0, model)
    assert model.x == 3.0
    np.testing.assert_array_equal(model.tree["a"], [3.0, 3.0])


def test_what_is_read_of_a_broadcast_object_does_not_go_round():
    def step(x, m):
        m.count[...] = m.count + m.w.sum()
        return x

    run = nnx.scan(step, **BROADCAST)
    jaxpr = nnx.make_jaxpr(run)(jnp.ones(2), Counter(5)).jaxpr
    (equation,) = scans_in(jaxpr)
    assert shapes(equation.outvars) == [()]
    assert shapes(jaxpr.outvars) == [(), (2,)]  # and x


def test_a_broadcast_object_keeps_structure_and_shapes():
    def grows(x, m):
        m.count.set_raw_value(jnp.zeros(3))
        return x

    def changes(x, m):
        m.count.set_raw_value({"a": jnp.zeros(())})
        return x

    message = error_of(nnx.StructureError, nnx.scan(grows, **BROADCAST), 1.0, Counter())
    assert "what nnx.scan of 'test_a_broadcast_object_keeps_structure_and_shapes" in message
    assert "m.count was float32[] before and is float32[3] after" in message
    message = error_of(nnx.StructureError, nnx.scan(changes, **BROADCAST), 1.0, Counter())
    assert "m.count was PyTreeDef(*) before and is PyTreeDef({'a': *}) after" in message
    assert "Give the Variable its whole structure before the call" in message
    axes = nnx.StateAxes({nnx.BatchStat: nnx.Carry, ...: None})
    carried = nnx.scan(changes, length=3, in_axes=(nnx.Carry, axes), out_axes=nnx.Carry)
    assert "m.count was PyTreeDef(*)" in error_of(nnx.StructureError, carried, 1.0, Counter())


def test_a_broadcast_module():
    model = Counter()
    y = nnx.scan(
        lambda x, m: m.w * x * 2.0, length=3, in_axes=(nnx.Carry, None), out_axes=nnx.Carry
    )(jnp.ones(2), model)
    np.testing.assert_array_equal(y, [8.0, 8.0])


def test_a_broadcast_module_may_be_returned_as_such():
    f = nnx.scan(
        lambda c, m: (c, m), length=2, in_axes=(nnx.Carry, None), out_axes=(nnx.Carry, None)
    )
    model = Counter()
    assert f(1.0, model)[1] is model
