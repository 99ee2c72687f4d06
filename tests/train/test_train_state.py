"""TrainState: an immutable pytree whose steps are those of plain Optax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx

X = jnp.linspace(-1.0, 1.0, 6).reshape(3, 2)


class StatisticsState(nnx.TrainState):
    stats: nnx.State
    note: str = dataclasses.field(default="", metadata={"pytree_node": False})


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(2, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.linear(x))

    def doubled(self, x):
        return 2 * self.linear(x)


@pytest.fixture
def state():
    graphdef, params, stats = nnx.split(Net(), nnx.Param, ...)
    return StatisticsState.create(
        graphdef, params=params, tx=optax.adam(0.1), stats=stats, note="a"
    )


def test_create(state):
    assert state.step == 0
    assert jnp.issubdtype(state.step.dtype, jnp.integer)
    assert dataclasses.replace(state, note="b").note == "b"


def test_apply_by_state_and_by_name(state):
    out, (graphdef, after) = state.apply("params", "stats")(X)
    same, _ = state.apply(state.params, state.stats)(X)
    np.testing.assert_array_equal(out, same)
    assert graphdef == state.graphdef
    assert (after["norm"]["mean"].value != state.stats["norm"]["mean"].value).any()


def test_apply_calls_methods(state):
    out, _ = state.apply("params", "stats").doubled(X)
    part, _ = state.apply("params", "stats").linear(X)
    np.testing.assert_array_equal(2 * part, out)
    np.testing.assert_array_equal(out, Net().doubled(X))


def test_apply_gradients_equals_plain_optax(state):
    grads = jax.tree.map(jnp.ones_like, state.params)
    after = state.apply_gradients(grads, note="after")
    with jax.numpy_dtype_promotion("standard"):
        tx = optax.adam(0.1)
        params = nnx.to_pure_dict(state.params)
        updates, _ = tx.update(nnx.to_pure_dict(grads), tx.init(params), params)
        expected = optax.apply_updates(params, updates)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(after.params), expected)
    assert (state.step, after.step, after.note) == (0, 1, "after")


def test_goes_through_jit_and_scan(state):
    def loss(params, stats):
        out, _ = state.apply(params, stats)(X)
        return (out**2).mean()

    def step(state, _):
        value, grads = jax.value_and_grad(loss)(state.params, state.stats)
        return state.apply_gradients(grads), value

    last, losses = jax.jit(lambda state: jax.lax.scan(step, state, length=3))(state)
    assert isinstance(last, StatisticsState)
    assert last.step == 3
    assert losses[2] < losses[0]


def test_static_fields_are_no_leaves(state):
    names = {path[0].name for path, _ in jax.tree.leaves_with_path(state)}
    assert names == {"params", "opt_state", "step", "stats"}


def test_is_frozen(state):
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.step = 3
    assert state.replace(step=3).step == 3


def test_name_of_no_state(state):
    with pytest.raises(ValueError, match=r"no State named 'notes'; .*apply\('params', 'stats'\)"):
        state.apply("notes")
