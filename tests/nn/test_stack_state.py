"""States and checkpoints are the same, stacked or not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.nn.stacks import WIDTH, N, linear


class Model(nnx.Module):
    """A model of two places with blocks."""

    def __init__(self, seed, stacked):
        rngs = nnx.Rngs(seed)
        self.stem = linear(rngs)
        self.trunk = nnx.Stack(linear, N, rngs=rngs)
        self.heads = {"a": nnx.Stack(lambda r: nnx.Dropout(0.5, rngs=r), 2, rngs=rngs)}
        if not stacked:
            self.trunk, self.heads["a"] = nnx.unstack(self.trunk), nnx.unstack(self.heads["a"])


def paths(state):
    return nnx.to_flat_state(state).paths


def assert_equal(a, b):
    assert paths(a) == paths(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_the_state_of_a_stack():
    stack = nnx.Stack(linear, N, rngs=nnx.Rngs(0))
    state = nnx.unstack(nnx.state(stack))
    assert_equal(state, nnx.state(nnx.unstack(stack)))
    assert type(state[0].kernel) is nnx.Param
    assert_equal(nnx.stack(state), nnx.state(stack))


def test_the_state_of_a_model():
    stacked, unrolled = Model(0, True), Model(0, False)
    assert_equal(nnx.unstack(nnx.state(stacked), like=stacked), nnx.state(unrolled))
    assert_equal(nnx.stack(nnx.state(unrolled), like=stacked), nnx.state(stacked))


def test_pure_dicts_and_arrays():
    stacked = Model(0, True)
    pure = nnx.to_pure_dict(nnx.unstack(nnx.state(stacked), like=stacked))
    assert pure["trunk"][2]["kernel"].shape == (WIDTH, WIDTH)
    again = nnx.stack(pure, like=stacked)
    np.testing.assert_array_equal(again.trunk.stacked.kernel, stacked.trunk.stacked.kernel[...])


def test_the_state_of_an_optimizer():
    stacked, unrolled = Model(0, True), Model(0, False)
    first, second = (
        nnx.state(nnx.Optimizer(m, optax.adam(1e-3), wrt=nnx.Param)) for m in (stacked, unrolled)
    )
    assert_equal(nnx.unstack(first, like=stacked), second)
    assert_equal(nnx.stack(second, like=stacked), first)


def test_stacks_inside_stacks_stay_stacked():
    stack = nnx.Stack(lambda r: nnx.Stack(linear, 2, rngs=r), N, rngs=nnx.Rngs(0))
    state = nnx.unstack(nnx.state(stack), like=stack)
    assert_equal(state, nnx.state(nnx.unstack(stack)))
    assert state[0].stacked.kernel.shape == (2, WIDTH, WIDTH)
    assert_equal(nnx.stack(state, like=stack), nnx.state(stack))


def test_sharding_names_follow():
    with nnx.use_eager_sharding(False):
        param = nnx.Param(jnp.ones((2, 3)), out_sharding=("layers", "in"))
        state = nnx.unstack(nnx.State({"stacked": {"w": param}}))
        assert state[1].w.out_sharding == ("in",)
        assert nnx.stack(state).stacked.w.out_sharding == (None, "in")
        init = nnx.with_partitioning(nnx.initializers.zeros, ("in", None))
        make = lambda r: nnx.Linear(WIDTH, WIDTH, kernel_init=init, rngs=r)  # noqa: E731
        stack = nnx.Stack(make, N, rngs=nnx.Rngs(0), partition="layers")
    again = nnx.stack(nnx.unstack(nnx.state(stack)), like=stack)
    assert again.stacked.kernel.out_sharding == ("layers", "in", None)


def test_a_checkpoint_of_an_unrolled_model_is_restored_into_stacks(tmp_path):
    unrolled, stacked = Model(0, False), Model(1, True)
    nnx.save(tmp_path / "unrolled.safetensors", model=unrolled)
    state = nnx.load(tmp_path / "unrolled.safetensors").state()["model"]
    nnx.update(stacked, nnx.stack(state, like=stacked))
    assert_equal(nnx.state(stacked), nnx.state(Model(0, True)))
    other = Model(2, False)
    nnx.update(other, nnx.unstack(nnx.state(stacked), like=stacked))
    assert_equal(nnx.state(other), nnx.state(unrolled))


def test_blocks_of_other_shapes_are_refused_by_path():
    state = nnx.state(Model(0, False))
    state.trunk[1].kernel = nnx.Param(jnp.ones((2, 2)))
    with pytest.raises(nnx.StructureError) as error:
        nnx.stack(state, like=Model(0, True))
    assert "trunk[0].kernel is f32[4,4] and trunk[1].kernel is f32[2,2]" in str(error.value)
    assert "put several Stacks in a row" in str(error.value)


def test_missing_blocks_are_named():
    state, like = nnx.state(Model(0, False)), Model(0, True)
    del state.trunk[1].bias
    message = r"cannot stack a State of 3 blocks: trunk\[1\].bias is missing"
    with pytest.raises(nnx.StructureError, match=message):
        nnx.stack(state, like=like)
    state = nnx.state(nnx.List([linear(nnx.Rngs(0)) for _ in range(N + 1)]))
    with pytest.raises(nnx.StructureError, match=r"of 3 blocks: \[3\].bias is one too many"):
        nnx.stack(state, like=like.trunk)
    del state[0].bias
    with pytest.raises(nnx.StructureError, match=r"of 4 blocks: \[0\].bias is missing"):
        nnx.stack(state)


def test_a_model_without_stacks_is_refused():
    with pytest.raises(nnx.StructureError, match=r"`like` is a Linear without a Stack: give the"):
        nnx.unstack(nnx.state(Model(0, True)), like=linear(nnx.Rngs(0)))
