"""EMA: averages that move as the formula says, and a model that holds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Net(nnx.Module):
    def __init__(self, seed: int = 0):
        rngs = nnx.Rngs(seed)
        self.layers = [nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)]
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.calls = nnx.Variable(jnp.array(0))


@pytest.fixture
def model():
    return Net()


def kernels(*nodes):
    return [np.asarray(node.layers[0].kernel.value) for node in nodes]


def test_update_moves_the_average_by_the_formula(model):
    ema = nnx.EMA(model, decay=0.75)
    [old] = kernels(model)
    model.layers[0].kernel[...] += 1.0
    ema.update(model)
    average = ema.params["layers"][0]["kernel"]
    np.testing.assert_array_equal(average.value, 0.75 * old + 0.25 * kernels(model)[0])
    ema.update(nnx.state(model, nnx.Param, nnx.BatchStat)[0] | nnx.state(model, nnx.BatchStat))
    np.testing.assert_allclose(average.value, old + 1 - 0.75**2, rtol=1e-6)


def test_averages_are_in_variables_and_buffers_of_their_own(model):
    ema = nnx.EMA(model, decay=0.5, only=nnx.Param)
    kernel = ema.params["layers"][0]["kernel"]
    assert type(kernel) is nnx.Param
    assert kernel is not model.layers[0].kernel
    assert kernel.value.unsafe_buffer_pointer() != (
        model.layers[0].kernel.value.unsafe_buffer_pointer()
    )


def test_what_has_no_average_is_left_to_the_model(model):
    ema = nnx.EMA(model, decay=0.5)
    paths = set(nnx.to_flat_state(ema.params).paths)
    assert ("layers", 1, "mean") in paths
    assert not {path for path in paths if path[0] in ("dropout", "calls")}
    model.calls[...] += 1
    assert ema.apply_to(model).calls[...] == 1


def test_apply_to_shares_the_averages_and_the_rest(model):
    ema = nnx.EMA(model, decay=0.5, only=nnx.Param)
    averaged = ema.apply_to(model)
    assert averaged is not model
    assert averaged.layers[0].kernel is ema.params["layers"][0]["kernel"]
    assert averaged.layers[1].mean is model.layers[1].mean
    model.layers[0].kernel[...] += 2.0
    ema.update(model)
    np.testing.assert_allclose(*kernels(averaged, model)[:1], kernels(model)[0] - 1.0, rtol=1e-5)
    state = ema.apply_to(nnx.state(model))
    assert state["layers"][0]["kernel"] is averaged.layers[0].kernel


def test_works_inside_jit(model):
    ema = nnx.EMA(model, decay=0.5, only=nnx.Param)
    [old] = kernels(model)
    model.layers[0].kernel[...] += 1.0
    nnx.jit(lambda ema, model: ema.update(model))(ema, model)
    np.testing.assert_allclose(ema.params["layers"][0]["kernel"].value, old + 0.5, rtol=1e-6)


def test_averages_keep_their_dtype(model):
    model.layers[0].kernel.value = model.layers[0].kernel.value.astype(jnp.bfloat16)
    ema = nnx.EMA(model, decay=0.5, only=nnx.Param)
    model.layers[0].kernel.value = jnp.ones((2, 3), jnp.float32)
    ema.update(model)
    assert ema.params["layers"][0]["kernel"].value.dtype == jnp.bfloat16


@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_decay_out_of_range(model, decay):
    with pytest.raises(ValueError, match="between 0 and 1"):
        nnx.EMA(model, decay)


def test_nothing_to_average(model):
    with pytest.raises(ValueError, match=r"only=.*Cache.* selects no Variable"):
        nnx.EMA(model, 0.9, only=nnx.Cache)


def test_plain_arrays_are_refused(model):
    model.offset = jnp.ones(3)
    with pytest.raises(TypeError, match=r"found a plain ArrayImpl at offset"):
        nnx.EMA(model, 0.9)


def test_values_that_do_not_fit_are_listed_and_nothing_is_written(model):
    ema = nnx.EMA(model, 0.9, only=nnx.Param)
    before = jax.tree.leaves(ema.params)
    with pytest.raises(nnx.StructureError) as caught:
        ema.update({"layers": {0: {"kernel": jnp.ones((5, 5)), "bias": jnp.ones(3)}}})
    assert "missing: layers[1].scale" in str(caught.value)
    assert "layers[0].kernel: expected shape (2, 3), found (5, 5)" in str(caught.value)
    assert all(x is y for x, y in zip(before, jax.tree.leaves(ema.params), strict=True))


def test_apply_to_another_model(model):
    ema = nnx.EMA(model, 0.9, only=nnx.Param)
    with pytest.raises(nnx.StructureError, match=r"lacks .*: layers\[0\]\.bias"):
        ema.apply_to(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("transform", [lambda f: f, nnx.jit], ids=["eager", "jit"])
def test_averages_of_low_precision_move(dtype, transform):
    model = nnx.Linear(2, 3, param_dtype=dtype, rngs=nnx.Rngs(0))
    model.kernel[...] = jnp.zeros((2, 3), dtype)
    ema = nnx.EMA(model, decay=0.999)
    averaged = ema.apply_to(model)
    model.kernel[...] = jnp.ones((2, 3), dtype)
    update = transform(lambda ema, model: ema.update(model))
    for _ in range(100):
        update(ema, model)
    exact = 1 - 0.999**100
    np.testing.assert_allclose(ema.wide["kernel"][...], exact, rtol=1e-4)
    assert averaged.kernel is ema.params["kernel"] and averaged.kernel.dtype == dtype
    np.testing.assert_array_equal(averaged.kernel[...], jnp.asarray(exact, dtype))
    assert nnx.graphdef(averaged) == nnx.graphdef(model)


def test_an_average_that_was_written_goes_on_from_there():
    model = nnx.Linear(2, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    ema = nnx.EMA(model, decay=0.5)
    ema.update(model)
    ema.params["kernel"][...] = jnp.full((2, 3), 3.0, jnp.bfloat16)
    model.kernel[...] = jnp.ones((2, 3), jnp.bfloat16)
    ema.update(model)
    np.testing.assert_array_equal(ema.params["kernel"][...], 2.0)


def test_what_is_wide_enough_is_kept_once():
    model = nnx.BatchNorm(2, param_dtype=jnp.complex64, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.EMA(model, decay=0.5).wide)
    with jax.enable_x64(True):
        model = nnx.Linear(2, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        ema = nnx.EMA(model, decay=0.5)
        assert ema.params["kernel"].dtype == jnp.float64 and not jax.tree.leaves(ema.wide)
