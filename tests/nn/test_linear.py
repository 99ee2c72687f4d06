import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh


def linear(*args, **kwargs):
    return nnx.Linear(*(args or (3, 5)), rngs=nnx.Rngs(0), **kwargs)


def general(*args, **kwargs):
    return nnx.LinearGeneral(*args, rngs=nnx.Rngs(0), **kwargs)


def spying_on(function, calls):
    def spied(*args, **kwargs):
        calls.append(kwargs)
        return function(*args, **kwargs)

    return spied


def test_linear_computes_the_product():
    layer = linear(bias_init=nnx.initializers.ones)
    x = jnp.ones((2, 3))
    np.testing.assert_allclose(layer(x), x @ layer.kernel[...] + 1, rtol=1e-6)


def test_numpy_inputs_and_a_jitted_pytree():
    layer = linear()
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(layer, x), layer(x), rtol=1e-6)


def test_pickles():
    layer = linear()
    copy = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(copy(jnp.ones((2, 3))), layer(jnp.ones((2, 3))))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (4, 2),
            r"Linear\(in_features=3, out_features=5\) expects inputs of shape \(\.\.\., 3\), found "
            r"shape \(4, 2\): make it `nnx.Linear\(2, 5, \.\.\.\)`, or bring the features",
        ),
        (
            (),
            r"expects inputs of shape .* found shape \(\): give the inputs a last axis, `inputs\[",
        ),
    ],
)
def test_linear_refuses_inputs_of_another_size(shape, message):
    with pytest.raises(ValueError, match=message):
        linear()(jnp.ones(shape))


def test_linear_refuses_to_be_called_as_a_stack():
    layer = linear()
    layer.kernel = nnx.Param(jnp.ones((7, 3, 5)))
    message = r"expects a kernel of two axes, found one of shape \(7, 3, 5\): a stack of layers is"
    with pytest.raises(ValueError, match=message):
        layer(jnp.ones((2, 3)))


def test_metadata_reaches_the_parameters():
    for layer in (
        linear(kernel_metadata={"group": 1}, bias_metadata={"group": 2}),
        general(3, 5, kernel_metadata={"group": 1}, bias_metadata={"group": 2}),
    ):
        assert (layer.kernel.group, layer.bias.group) == (1, 2)


def test_sharding_metadata_places_the_kernel():
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = jax.sharding.PartitionSpec("a", "b")
    with jax.set_mesh(mesh):
        layer = linear(4, 8, kernel_metadata={"out_sharding": ("a", "b")})
    assert layer.kernel[...].sharding.spec == spec


def test_out_sharding_of_the_call():
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    spec = jax.sharding.PartitionSpec("a", "b")
    with jax.set_mesh(mesh):
        assert linear(4, 8)(jnp.ones((4, 4)), spec).sharding.spec == spec
        outputs = general(4, (8, 1))(jnp.ones((4, 4)), spec)
        assert tuple(outputs.sharding.spec) == ("a", "b", None)


@pytest.mark.parametrize("make", [linear, lambda **kwargs: general(3, 5, **kwargs)])
def test_functions_of_the_user_are_used(make):
    calls, promoted = [], []
    layer = make(
        dot_general=spying_on(jax.lax.dot_general, calls),
        promote_dtype=spying_on(nnx.nn.dtypes.promote_dtype, promoted),
        precision="highest",
        dtype=jnp.bfloat16,
    )
    layer(jnp.ones((2, 3)))
    assert calls == [{"precision": "highest"}]  # nothing that was not asked for
    assert promoted == [{"dtype": jnp.bfloat16}]


def test_dot_general_cls_is_made_for_each_call():
    calls = []

    def dot_general_cls():
        return spying_on(jax.lax.dot_general, calls)

    layer = general(3, 5, dot_general_cls=dot_general_cls, dot_general=None)
    layer(jnp.ones((2, 3)))
    layer(jnp.ones((2, 3)))
    assert len(calls) == 2


def test_preferred_element_type_is_the_dtype_of_the_result():
    x = jnp.ones((2, 3), jnp.bfloat16)
    kwargs = {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32}
    assert linear(**kwargs)(x).dtype == jnp.float32
    assert general(3, 5, **kwargs)(x).dtype == jnp.float32


def test_linear_general_contracts_any_axes():
    layer = general((2, 3), (4, 5), axis=(1, -1))
    x = jax.random.normal(jax.random.key(0), (7, 2, 6, 3))
    expected = jnp.einsum("naib,abhk->nihk", x, layer.kernel[...])
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


def test_linear_general_batch_axes_have_kernels_of_their_own():
    layer = general(3, 5, batch_axis={0: 2}, bias_init=nnx.initializers.normal())
    x = jax.random.normal(jax.random.key(0), (2, 4, 3))
    expected = jnp.einsum("bni,bio->bno", x, layer.kernel[...]) + layer.bias[...][:, None]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: general((2, 3), 5),
            r"one axis for each of in_features=\(2, 3\), found axis=\(-1,\): .* `axis=\(-2, -1\)`",
        ),
        (
            lambda: general(3, 5, batch_axis={1: 4}),
            r"leading axes 0, 1, \.\.\., found batch_axis=\{1: 4\}: bring them to the front",
        ),
    ],
)
def test_linear_general_refuses_arguments_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            lambda: general(3, 5),
            (4, 2),
            r"expects inputs with axis 1 of size 3, found shape \(4, 2\)",
        ),
        (lambda: general(3, 5), (), r"with axis -1 of size 3, found shape \(\)"),
        (lambda: general(3, 5, batch_axis={0: 2}), (4, 7, 3), r"with axis 0 of size 2, found"),
        (lambda: general(3, 5, batch_axis={0: 3}), (3,), "with distinct batch and contracted axes"),
        (
            lambda: general((3, 2), 5, axis=(-1, 1)),
            (4, 2, 3),
            "in the order in which the inputs have",
        ),
    ],
)
def test_linear_general_refuses_inputs_of_another_shape(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer()(jnp.ones(shape))


def test_a_stack_taken_apart_along_another_axis():
    @nnx.vmap
    def make(key):
        return nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(key))

    @nnx.scan(in_axes=(nnx.Carry, 1), out_axes=nnx.Carry)
    def run(x, layer):
        return layer(x)

    message = r"expects a kernel of shape \(4, 4\), found one of shape \(3, 4\): a stack of layers"
    with pytest.raises(ValueError, match=message):
        run(jnp.ones((2, 4)), make(jax.random.split(jax.random.key(0), 3)))
