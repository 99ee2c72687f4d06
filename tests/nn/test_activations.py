import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

REEXPORTED = (
    "celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu log_sigmoid "
    "log_softmax logsumexp one_hot relu relu6 selu sigmoid silu soft_sign softmax softplus "
    "standardize swish"
).split()


@pytest.mark.parametrize("name", REEXPORTED)
def test_is_the_function_of_jax(name):
    assert getattr(nnx, name) is getattr(jax.nn, name)


def test_tanh_is_the_function_of_jax():
    assert nnx.tanh is jnp.tanh


def test_prelu_of_integers_is_not_truncated():
    outputs = nnx.PReLU(0.5)(jnp.array([-2, 4]))
    assert outputs.dtype == jnp.float32
    np.testing.assert_array_equal(outputs, [-1.0, 4.0])


def test_prelu_computes_in_the_dtype_of_its_inputs():
    assert nnx.PReLU()(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
    assert nnx.PReLU(dtype=jnp.float16)(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float16


def test_prelu_slope_takes_dtype_and_metadata():
    layer = nnx.PReLU(param_dtype=jnp.bfloat16, negative_slope_metadata={"group": "slopes"})
    assert layer.negative_slope.dtype == jnp.bfloat16
    assert layer.negative_slope.group == "slopes"
