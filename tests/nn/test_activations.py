import copy
import inspect
import os
import pickle
import subprocess
import sys

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jnp.array([[-4.0, -0.5, 0.0, 0.3, 3.5, 8.0]])
CALLS = {
    "celu": ((0.5,), {}),
    "elu": ((), {"alpha": 0.5}),
    "gelu": ((), {"approximate": False}),
    "glu": ((1,), {}),
    "hard_sigmoid": ((), {}),
    "hard_silu": ((), {}),
    "hard_swish": ((), {}),
    "hard_tanh": ((), {}),
    "identity": ((), {}),
    "leaky_relu": ((0.2,), {}),
    "log_sigmoid": ((), {}),
    "log_softmax": ((), {"axis": -1, "where": X < 5}),
    "logsumexp": ((), {"b": jnp.array(2.0), "keepdims": True, "return_sign": True}),
    "one_hot": ((9,), {"dtype": jnp.bfloat16, "axis": 0}),
    "relu": ((), {}),
    "relu6": ((), {}),
    "selu": ((), {}),
    "sigmoid": ((), {}),
    "silu": ((), {}),
    "soft_sign": ((), {}),
    "softmax": ((1,), {"where": X < 5}),
    "softplus": ((), {}),
    "standardize": ((), {"epsilon": 1e-3, "where": X < 5}),
    "swish": ((), {}),
    "tanh": ((), {}),
}
"""The further arguments of each function."""


def function_of_jax(name):
    return jnp.tanh if name == "tanh" else getattr(jax.nn, name)


@pytest.mark.parametrize("name", CALLS)
def test_computes_what_jax_does(name):
    ours, theirs = getattr(nnx, name), function_of_jax(name)
    x = X.astype(jnp.int32) if name == "one_hot" else X
    args, kwargs = CALLS[name]

    def program(f):
        return str(jax.make_jaxpr(lambda x: f(x, *args, **kwargs))(x))

    assert program(ours) == program(theirs)
    jax.tree.map(
        np.testing.assert_array_equal, ours(x, *args, **kwargs), theirs(x, *args, **kwargs)
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_variable_is_taken_for_its_value(name):
    function, (args, kwargs) = getattr(nnx, name), CALLS[name]
    x = X.astype(jnp.int32) if name == "one_hot" else X
    expected = function(x, *args, **kwargs)
    jax.tree.map(np.testing.assert_array_equal, function(nnx.Param(x), *args, **kwargs), expected)


@pytest.mark.parametrize("name", CALLS)
def test_defaults_are_those_of_jax(name):
    theirs = inspect.signature(function_of_jax(name)).parameters
    ours = inspect.signature(getattr(nnx, name)).parameters
    named = {n: p for n, p in ours.items() if p.kind is not p.VAR_KEYWORD}
    for parameter, given in named.items():
        assert given.default == theirs[parameter].default
    if len(named) == len(ours):  # otherwise whatever else JAX takes is handed on
        assert list(ours) == list(theirs)


def test_options_of_newer_jax_are_handed_on():
    with pytest.raises(TypeError, match="no_such_option"):
        nnx.one_hot(jnp.array(0), 2, no_such_option=1)
    with pytest.raises(TypeError, match="no_such_option"):
        nnx.standardize(X, no_such_option=1)


@pytest.mark.parametrize("module", [pickle, cloudpickle])
@pytest.mark.parametrize("name", CALLS)
def test_a_model_that_keeps_one_is_copied_with_it(name, module):
    function = getattr(nnx, name)
    model = nnx.Sequential(nnx.Linear(6, 6, rngs=nnx.Rngs(0)), function)
    for other in (copy.deepcopy(model), module.loads(module.dumps(model))):
        assert other.layers[1] is function
        assert nnx.graphdef(other) == nnx.graphdef(model)
        assert hash(nnx.graphdef(other)) == hash(nnx.graphdef(model))


def test_models_with_each_pickle_into_another_process():
    unary = [n for n, call in CALLS.items() if call == ((), {})]
    models = {n: nnx.Sequential(nnx.Identity(), getattr(nnx, n)) for n in unary}
    code = (
        "import pickle, sys\n"
        "models, x = pickle.load(sys.stdin.buffer)\n"
        "pickle.dump({name: model(x) for name, model in models.items()}, sys.stdout.buffer)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((models, X)),
        env=os.environ,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    outputs = pickle.loads(done.stdout)
    assert set(outputs) == set(unary)
    for name, output in outputs.items():
        np.testing.assert_array_equal(output, function_of_jax(name)(X))


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
