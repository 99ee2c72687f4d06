import contextlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.parameters import new_param


class Layer(nnx.Module):
    pass


@pytest.mark.parametrize(("rngs", "found"), [(None, "None of type NoneType"), (0, "0 of type int")])
def test_rngs_of_another_type_are_refused(rngs, found):
    with pytest.raises(
        TypeError, match=rf"Layer expected `rngs` .* found {found}: use `nnx.Layer\("
    ):
        new_param(Layer(), rngs, nnx.initializers.zeros, (2,), jnp.float32)


def test_one_key_is_drawn_for_each_parameter():
    rngs = nnx.Rngs(0, params=1)
    new_param(Layer(), rngs, nnx.initializers.zeros, (2,), jnp.float32)
    assert int(rngs.params.count[...]) == 1


def test_drawn_as_another_shape_keeps_metadata_of_the_initializer():
    init = nnx.with_metadata(lambda key, shape, dtype: jnp.arange(6.0).reshape(shape), group="a")
    param = new_param(
        Layer(), nnx.Rngs(0), init, (3, 1, 2), jnp.float32, {"other": 1}, drawn_as=(3, 2)
    )
    assert (param.group, param.other) == ("a", 1)
    np.testing.assert_array_equal(param[...], np.arange(6.0).reshape(3, 1, 2))


def test_param_type():
    param = new_param(
        Layer(), nnx.Rngs(0), nnx.initializers.zeros, (2,), jnp.float32, param_type=nnx.LoRAParam
    )
    assert type(param) is nnx.LoRAParam


@contextlib.contextmanager
def entered(mesh):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer JAX has set_mesh for it
        with mesh:
            yield


CONTEXTS = {
    "none": contextlib.nullcontext,
    "x64": lambda: jax.enable_x64(True),
    "default device": lambda: jax.default_device(jax.devices()[1]),
    "mesh of automatic axes": lambda: jax.set_mesh(
        jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    ),
    "mesh of explicit axes": lambda: jax.set_mesh(
        jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    ),
    "mesh entered": lambda: entered(jax.make_mesh((2,), ("x",))),
    "no compiling": jax.disable_jit,
}


def facts(x):
    return x.dtype, x.shape, x.weak_type, x.committed, x.sharding, np.asarray(x).tolist()


@pytest.mark.parametrize("dtype", [jnp.float32, "bfloat16", jnp.int32, jnp.float64, bool, None])
@pytest.mark.parametrize("init", [nnx.initializers.zeros, nnx.initializers.ones])
@pytest.mark.parametrize("context", CONTEXTS)
def test_zeros_and_ones_are_what_the_initializer_returns(context, init, dtype):
    with CONTEXTS[context]():
        rngs = nnx.Rngs(0)
        if dtype == jnp.float64 and context != "x64":
            with pytest.warns(UserWarning, match="float64"):
                param = new_param(Layer(), rngs, init, (2, 3), dtype)
            with pytest.warns(UserWarning, match="float64"):
                expected = init(jax.random.key(0), (2, 3), dtype)
        else:
            param = new_param(Layer(), rngs, init, (2, 3), dtype)
            expected = init(jax.random.key(0), (2, 3), dtype)
    assert facts(param.get_raw_value()) == facts(expected)


def test_zeros_and_ones_inside_a_trace_belong_to_it():
    def make():
        return new_param(Layer(), nnx.Rngs(0), nnx.initializers.ones, (2,), jnp.float32)[...]

    assert not jax.make_jaxpr(make)().consts
