import copy
import functools
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


WITH_TAILS = ("gelu", "glu", "hard_silu", "hard_swish", "silu", "soft_sign", "swish")
"""Functions that are more than JAX's: they have limits at infinity."""


@pytest.mark.parametrize("name", CALLS)
def test_computes_what_jax_does(name):
    ours, theirs = getattr(nnx, name), function_of_jax(name)
    x = X.astype(jnp.int32) if name == "one_hot" else X
    args, kwargs = CALLS[name]

    def program(f):
        return str(jax.make_jaxpr(lambda x: f(x, *args, **kwargs))(x))

    def gradient(f):
        total = lambda x: sum(y.sum() for y in jax.tree.leaves(f(x, *args, **kwargs)))  # noqa: E731
        return jax.grad(lambda x: jnp.where(jnp.isfinite(total(x)), total(x), 0))(x)

    if name not in WITH_TAILS and "where" not in kwargs:
        assert program(ours) == program(theirs)
    jax.tree.map(
        np.testing.assert_array_equal, ours(x, *args, **kwargs), theirs(x, *args, **kwargs)
    )
    if x.dtype == jnp.float32:
        np.testing.assert_array_equal(gradient(ours), gradient(theirs))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", WITH_TAILS)
def test_tails_begin_where_a_function_ends(name, dtype):
    """Beyond the bounds the function of JAX gives the same, as long as it is finite."""
    ours, theirs = getattr(nnx, name), function_of_jax(name)
    with jax.enable_x64(True):
        x = jnp.asarray([-100.0, -41, -39, -11, -9, 0, 9, 11, 39, 41, 100, 120], dtype)
        options = [{"approximate": True}, {"approximate": False}] if name == "gelu" else [{}]
        for option in options:
            found, expected = ours(x, **option), theirs(x, **option)
            assert found.dtype == dtype
            # In bfloat16 XLA rounds what it fuses otherwise: seen where all but nothing is left.
            found, expected = (y.astype(jnp.float64) for y in (found, expected))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "standardize"])
@pytest.mark.parametrize("axis", [-1, (0, 1)])
def test_what_is_left_out_harms_nothing(name, axis):
    function = getattr(nnx, name)
    x = jnp.arange(6.0).reshape(2, 3) ** 2
    where = jnp.array([[True, False, True], [False, False, False]])

    def total(x):
        y = function(x, axis, where=where)
        return jnp.where(jnp.isfinite(y) & (where if y.shape == x.shape else True), y, 0).sum(), y

    both = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, expected), expected_grad = both(x)
    for garbage in (jnp.inf, -jnp.inf, jnp.nan):
        (_, y), grad = both(jnp.where(where, x, garbage))
        assert jnp.isfinite(grad).all() and not jnp.isnan(y).any()
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-6)
        if name != "standardize":  # which returns the others, too
            np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_where_nothing_counts():
    x, where = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[False], [True]])
    np.testing.assert_array_equal(nnx.softmax(x, where=where)[0], [0.0, 0.0])
    np.testing.assert_array_equal(nnx.log_softmax(x, where=where)[0], [-jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(nnx.standardize(x, where=where)[0], x[0])
    assert nnx.logsumexp(x, -1, where=where)[0] == -jnp.inf
    value, sign = nnx.logsumexp(x, -1, return_sign=True, where=where)
    assert value[0] == -jnp.inf and sign.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_no_nan_on_the_way_where_nothing_counts(name):
    function = functools.partial(getattr(nnx, name), where=jnp.zeros(3, bool))
    x = jnp.arange(3.0)
    with jax.debug_nans(True):
        function(x)
        for jacobian in (jax.jacfwd(function), jax.jacrev(function)):
            assert not jacobian(x).any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
@pytest.mark.parametrize("gate", [-jnp.inf, -2.0, 0.0, jnp.inf])
@pytest.mark.parametrize("value", [-jnp.inf, jnp.inf])
def test_glu_of_infinite_values(value, gate, dtype):
    x = jnp.array([value, gate], dtype)
    found, (by_value, by_gate) = jax.value_and_grad(lambda x: nnx.glu(x).sum())(x)
    assert found == value and by_gate == 0
    np.testing.assert_allclose(by_value, jax.nn.sigmoid(x[1]), rtol=1e-3, atol=1e-4)


def test_glu_of_a_gate_that_is_nan():
    assert jnp.isnan(nnx.glu(jnp.array([jnp.inf, 1.0, jnp.nan, jnp.nan]))).all()


STAY_INTEGERS = {"relu", "hard_tanh", "identity"}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"one_hot"}))
def test_integers_are_promoted_as_jax_numpy_does(name):
    function = getattr(nnx, name)
    x = jnp.array([[1, 0, 1, 1]])
    if name in STAY_INTEGERS:
        np.testing.assert_array_equal(function(x), x)
        assert function(x).dtype == x.dtype
        return
    for integers in (x, x.astype(bool)):
        found = function(integers)
        assert found.dtype == jnp.tanh(integers).dtype == jnp.float32
        np.testing.assert_array_equal(found, function(x.astype(jnp.float32)))


def test_integers_of_64_bits():
    with jax.enable_x64(True):
        for dtype in (jnp.int64, jnp.int32, jnp.uint8):
            x = jnp.array([1, 2], dtype)
            assert nnx.silu(x).dtype == nnx.sigmoid(x).dtype == jnp.tanh(x).dtype


@pytest.mark.parametrize("name", CALLS)
def test_lists_are_arrays(name):
    function = getattr(nnx, name)
    args = (3,) if name == "one_hot" else ()
    jax.tree.map(
        np.testing.assert_array_equal,
        function([[1, 0, 2, 1]], *args),
        function(jnp.array([[1, 0, 2, 1]]), *args),
    )


def test_gelu_of_low_precision_has_gradients_at_large_inputs():
    gradient = jax.grad(lambda x: nnx.gelu(x).astype(jnp.float32).sum())
    x = jnp.array([-60000.0, -100.0, 100.0, 60000.0], jnp.float16)
    np.testing.assert_array_equal(gradient(x), [0.0, 0.0, 1.0, 1.0])


def test_complex_numbers():
    z = jnp.array([1.0 + 2.0j, -3.0 + 0.5j])
    for name in ("silu", "sigmoid", "tanh"):
        np.testing.assert_array_equal(getattr(nnx, name)(z), function_of_jax(name)(z))


def test_standardize_stays_in_its_dtype():
    x = jnp.array([[60000.0, -60000.0, 1.0]], jnp.float16)
    y = nnx.standardize(x)
    assert y.dtype == jnp.float16
    np.testing.assert_allclose(y, [[1.2247, -1.2247, 0.0]], atol=1e-3)
    known = nnx.standardize(x, mean=jnp.float32(1.0), variance=jnp.float32(4.0))
    assert known.dtype == jnp.float16


def test_standardize_keeps_the_digits_of_low_precision():
    x = jnp.array([100.0, 101.0, 102.0, 103.0], jnp.bfloat16)
    y = nnx.standardize(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), [-1.342, -0.447, 0.447, 1.342], rtol=4e-3)


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


@pytest.mark.parametrize("extreme", [0.0, 3e38, -3e38, jnp.inf, -jnp.inf])
def test_prelu_at_the_extremes(extreme):
    layer, x = nnx.PReLU(), jnp.array([extreme, -2.0])

    def loss(layer, x):
        y = layer(x)
        return jnp.where(jnp.isfinite(x), y, 0).sum()

    grads = nnx.grad(loss, argnums=(0, 1))(layer, x)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert jnp.isnan(layer(jnp.array(jnp.nan)))


def test_prelu_computes_in_the_dtype_of_its_inputs():
    assert nnx.PReLU()(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
    assert nnx.PReLU(dtype=jnp.float16)(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float16


def test_prelu_slope_takes_dtype_and_metadata():
    layer = nnx.PReLU(param_dtype=jnp.bfloat16, negative_slope_metadata={"group": "slopes"})
    assert layer.negative_slope.dtype == jnp.bfloat16
    assert layer.negative_slope.group == "slopes"
