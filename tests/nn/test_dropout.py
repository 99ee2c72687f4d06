import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh

X = jnp.arange(1.0, 13.0).reshape(3, 4)


def test_kept_elements_are_scaled():
    y = nnx.Dropout(0.5, rngs=nnx.Rngs(0))(X)
    assert 0 < int((y == 0).sum()) < X.size
    np.testing.assert_array_equal(y[y != 0], 2 * X[y != 0])


def test_each_call_draws_anew_and_counts():
    layer = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    assert not (layer(X) == layer(X)).all()
    assert int(layer.rngs.count[...]) == 2


def test_broadcast_dims_share_a_draw():
    y = nnx.Dropout(0.5, broadcast_dims=(0,), rngs=nnx.Rngs(0))(jnp.ones((50, 8)))
    assert (y == y[0]).all()
    assert 0 < float(y[0].sum()) < 16


def test_nothing_is_drawn_where_nothing_can_drop():
    for layer in (nnx.Dropout(0.0), nnx.Dropout(0.5, deterministic=True)):
        assert layer(X) is X
    assert not nnx.Dropout(1.0)(X).any()


def test_rate_one_is_the_identity_when_deterministic():
    assert nnx.Dropout(1.0, deterministic=True)(X) is X


def test_the_call_overrides_the_layer():
    layer = nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(0))
    assert (layer(X, deterministic=False) == 0).any()
    key = jax.random.key(3)
    np.testing.assert_array_equal(
        layer(X, deterministic=False, rngs=key), nnx.Dropout(0.5)(X, rngs=key)
    )


def test_modes_and_views():
    layer = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    layer.eval()
    assert layer(X) is X
    layer.train()
    assert (layer(X) == 0).any()
    assert nnx.view(layer, deterministic=True)(X) is X
    assert layer.deterministic is False


RATES = {
    "array": lambda: jnp.array(0.5),
    "of NumPy": lambda: np.float32(0.5),
    "of one element": lambda: np.array([0.5]),
    "Variable": lambda: nnx.Variable(jnp.array(0.5)),
}


@pytest.mark.parametrize("name", RATES)
def test_rates_of_any_kind_drop_the_same(name):
    key = jax.random.key(1)
    expected = nnx.Dropout(0.5)(X, rngs=key)
    layer = nnx.Dropout(RATES[name]())
    np.testing.assert_array_equal(layer(X, rngs=key), expected)
    np.testing.assert_array_equal(nnx.jit(lambda m: m(X, rngs=key))(layer), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_schedule_of_rates_is_one_program(dtype):
    layer, traces = nnx.Dropout(0.0, rngs=nnx.Rngs(0)), []
    x = jnp.ones((50, 20), dtype)

    @nnx.jit
    def step(layer, rate):
        traces.append(1)
        layer.rate = rate

        def loss(layer, x):
            y = layer(x)
            return y.astype(jnp.float32).sum(), y

        return nnx.grad(loss, argnums=1, has_aux=True)(layer, x)

    for rate in (0.0, 0.1, 0.5, 0.9, 1.0):
        gradient, y = step(layer, jnp.float32(rate))
        assert y.dtype == gradient.dtype == dtype and float(layer.rate) == np.float32(rate)
        assert jnp.isfinite(gradient).all()
        dropped = float((y == 0).mean())
        assert abs(dropped - rate) < 0.05
        if rate < 1:
            kept = y[y != 0].astype(jnp.float32)
            np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=4 * float(jnp.finfo(dtype).eps))
    assert len(traces) <= 2  # the rate was no array in the first call


def test_rates_that_differ_from_element_to_element():
    layer = nnx.Dropout(jnp.array([0.0, 1.0, 0.0, 1.0]), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(X), X * jnp.array([1.0, 0.0, 1.0, 0.0]))


def test_layers_of_different_rates_under_vmap():
    @nnx.vmap
    def make(rate):
        return nnx.Dropout(rate)

    layers = make(jnp.array([0.0, 1.0]))
    y = nnx.vmap(lambda layer, x: layer(x, rngs=jax.random.key(0)))(layers, jnp.ones((2, 5)))
    np.testing.assert_array_equal(y, [[1.0] * 5, [0.0] * 5])


def test_under_jit_the_stream_goes_on():
    eager, compiled = (nnx.Dropout(0.5, rngs=nnx.Rngs(0)) for _ in range(2))
    run = nnx.jit(lambda layer, x: layer(x))
    for _ in range(2):
        np.testing.assert_array_equal(eager(X), run(compiled, X))


@pytest.mark.parametrize("transform", [lambda f: f, nnx.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("broadcast_dims", [(), (0,)], ids=["each", "columns"])
def test_under_a_mesh_of_explicit_axes(transform, broadcast_dims):
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    mesh = make_mesh((2, 2), ("data", "model"), axis_types=kinds)
    x = jax.random.normal(jax.random.key(0), (4, 6)) + 3.0

    def step(layer, x):
        def loss(layer, x):
            y = layer(x)
            return (y * y).sum(), y

        return nnx.grad(loss, argnums=1, has_aux=True)(layer, x)

    def layer():
        return nnx.Dropout(0.5, broadcast_dims=broadcast_dims, rngs=nnx.Rngs(1))

    gradient, y = transform(step)(layer(), x)
    assert (y == 0).any() and (y != 0).any()
    with jax.set_mesh(mesh):
        sharding = jax.sharding.PartitionSpec("data", "model")
        placed = jax.device_put(x, sharding)
        sharded = layer()
        gradient_there, y_there = transform(step)(sharded, placed)
        for array in (y_there, gradient_there):
            assert jax.typeof(array).sharding.spec == sharding
    np.testing.assert_array_equal(y_there, y)
    np.testing.assert_array_equal(gradient_there, gradient)
    assert int(sharded.rngs.count[...]) == 1


def test_without_a_stream_the_error_shows_both_ways_to_give_one():
    with pytest.raises(ValueError, match="from the stream 'noise', but has no stream") as error:
        nnx.Dropout(0.5, rng_collection="noise")(X)
    assert "`nnx.Dropout(0.5, rngs=rngs)`" in str(error.value)
    assert "`layer(x, rngs=rngs)`" in str(error.value)


def test_other_mistakes():
    for rate in (1.5, jnp.array(1.5)):
        with pytest.raises(
            ValueError, match=r"Dropout expects a rate from 0 to 1, .* found .*1\.5"
        ):
            nnx.Dropout(rate)
    with pytest.raises(ValueError, match="draws from the stream 'dropout', but the Rngs"):
        nnx.Dropout(0.5, rngs=nnx.Rngs(params=0))
    with pytest.raises(ValueError, match="Dropout does not know its `deterministic`"):
        nnx.Dropout(0.5, deterministic=None)(X)
