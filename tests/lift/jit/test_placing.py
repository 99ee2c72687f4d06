"""Carries and branches on meshes whose axes are part of types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import weft as nnx
from tests.devices import make_mesh
from weft._lift.jit import placing

P = jax.P
CARRY = {"in_axes": (nnx.Carry, 0), "out_axes": (nnx.Carry, 0)}


def explicit():
    return make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))


def rows(mesh):
    return jax.device_put(jnp.arange(4.0), NamedSharding(mesh, P("data")))


def test_without_typed_axes_nothing_is_looked_at():
    def fails(carry):
        raise AssertionError

    first = [jnp.ones(2)]
    assert placing.settle(fails, first) == (first, None)
    assert placing.agree([fails, fails], first) is None
    assert placing.put(first, None) is first
    with jax.set_mesh(make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))):
        assert placing.settle(fails, first) == (first, None)


def test_a_first_carry_is_put_where_an_iteration_puts_it():
    mesh = explicit()
    with jax.set_mesh(mesh):
        x, zeros = rows(mesh), jnp.zeros(4)
        (a, b), places = placing.settle(lambda c: (c[0] + x, c[1]), (zeros, zeros))
        assert [jax.typeof(y).sharding.spec for y in (a, b)] == [P("data"), P(None)]
        assert [place.sharding.spec for place in places] == [P("data"), P(None)]
        # What one carry takes from another one comes with the second look.
        (a, b), _ = placing.settle(lambda c: (c[0] + x, c[0] + c[1]), (zeros, zeros))
        assert jax.typeof(b).sharding.spec == P("data")
        assert placing.settle(lambda c: [x], [x])[0] == [x]


class Holder(nnx.Module):
    def __init__(self):
        self.total, self.raw, self.kept = (
            nnx.Cache(jnp.zeros(4)),
            jnp.zeros(4),
            nnx.Param(jnp.ones(4)),
        )


def add(m, x):
    m.total[...] = m.total + x * m.kept
    m.raw = m.raw + x
    return m


LOOPS = {
    "scan": lambda m, x: nnx.scan(lambda m, i: (add(m, x), i), **CARRY)(m, jnp.arange(3.0)),
    "scan that writes what is broadcast": lambda m, x: nnx.scan(
        lambda m, i: add(m, x) and i, in_axes=(None, 0), out_axes=0
    )(m, jnp.arange(3.0)),
    "fori_loop": lambda m, x: nnx.fori_loop(0, 3, lambda i, m: add(m, x), m),
    "while_loop": lambda m, x: nnx.while_loop(
        lambda c: c[1] < 3, lambda c: (add(c[0], x), c[1] + 1), (m, 0)
    ),
    "cond": lambda m, x: [
        nnx.cond(True, lambda m: add(m, x) and None, lambda m: None, m) for _ in range(3)
    ],
    "switch": lambda m, x: [
        nnx.switch(1, [lambda m: None, lambda m: add(m, x) and None], m) for _ in range(3)
    ],
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("jit", [False, True])
def test_objects_in_loops_over_explicit_axes(name, jit):
    mesh = explicit()
    with jax.set_mesh(mesh):
        model, x = Holder(), rows(mesh)
        run = LOOPS[name]
        (nnx.jit(run, donate=None) if jit else run)(model, x)
        for value in (model.total[...], model.raw):
            np.testing.assert_array_equal(value, [0.0, 3.0, 6.0, 9.0])
            assert jax.typeof(value).sharding.spec == P("data")
        assert jax.typeof(model.kept[...]).sharding.spec == P(None)


@pytest.mark.parametrize("name", LOOPS)
def test_objects_in_loops_over_manual_axes(name):
    mesh = make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def forward(x):
        model = Holder()
        LOOPS[name](model, jnp.broadcast_to(x, 4))
        return model.total[...]

    out = jax.jit(jax.shard_map(forward, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(
        jnp.arange(4.0)
    )
    np.testing.assert_array_equal(out, 3.0 * np.repeat(np.arange(4.0), 4))


def test_an_empty_scan():
    mesh = explicit()
    with jax.set_mesh(mesh):
        model = Holder()
        nnx.scan(lambda m, i: (m, i), **CARRY)(model, jnp.zeros((0, 2)))
    assert model.total[...].tolist() == [0.0] * 4


def test_a_carry_that_never_settles_stays_where_it_was_put():
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)

    def turn(c, i):
        return jax.sharding.reshard(c, P(*reversed(jax.typeof(c).sharding.spec))), i

    with jax.set_mesh(mesh):
        start = jax.device_put(jnp.eye(2), NamedSharding(mesh, P("a", "b")))
        end, _ = nnx.scan(turn, **CARRY)(start, jnp.arange(2.0))
    np.testing.assert_array_equal(end, np.eye(2))
