import contextlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import devices, make_mesh
from weft.nn.parameters import check_sizes, new_param, sizes


class Layer(nnx.Module):
    pass


@pytest.mark.parametrize(("rngs", "found"), [(None, "None of type NoneType"), (0, "0 of type int")])
def test_rngs_of_another_type_are_refused(rngs, found):
    with pytest.raises(
        TypeError, match=rf"Layer expected `rngs` .* found {found}: use `nnx.Layer\("
    ):
        new_param(Layer(), rngs, nnx.initializers.zeros, (2,), jnp.float32)


def test_a_key_goes_into_streams():
    message = r"found an array: use `nnx\.Linear\(\.\.\., rngs=nnx\.Rngs\(key\)\)`$"
    with pytest.raises(TypeError, match=message):
        nnx.Linear(2, 3, rngs=jax.random.key(0))


def test_initializers_that_are_none():
    message = (
        r"Linear expects an initializer, .* found 'lecun_normal', which makes one: call it, `n"
    )
    with pytest.raises(TypeError, match=message):
        nnx.Linear(2, 3, kernel_init=nnx.initializers.lecun_normal, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"found 'he': write one of `nnx\.initializers`, such as"):
        nnx.Linear(2, 3, bias_init="he", rngs=nnx.Rngs(0))


def test_sizes_that_are_traced():
    with pytest.raises(TypeError, match=r"found a traced array: .* static_argnames='in_features'"):
        nnx.jit(lambda n: nnx.Linear(n, 3, rngs=nnx.Rngs(0)))(2)


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
    "default device": lambda: jax.default_device(devices(2)[1]),
    "mesh of automatic axes": lambda: jax.set_mesh(
        make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    ),
    "mesh of explicit axes": lambda: jax.set_mesh(
        make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    ),
    "mesh entered": lambda: entered(make_mesh((2,), ("x",))),
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


def test_sizes_are_a_tuple():
    assert sizes(3) == sizes([3]) == sizes(np.int64(3)) == (3,)
    assert sizes((2, 3)) == (2, 3) and sizes("3") == ("3",)


@pytest.mark.parametrize("value", [1, np.int32(1), (1, 2), [np.uint8(3)], jnp.array(4)])
def test_sizes_that_are_right(value):
    check_sizes("Layer", features=value)
    check_sizes("Layer", least=0, features=0, others=())


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (
            4.0,
            TypeError,
            r"an int of 1 or more, found 4\.0, where 4\.0 is of type float: write for ",
        ),
        (4.0, TypeError, r"`features=4`; ints are divided by `//`"),
        (
            (2, 2.5),
            TypeError,
            r"ints of 1 or more, found \(2, 2\.5\), where .* `features=\(2, 2\)`",
        ),
        ("3", TypeError, "'3' is of type str: write for example `features=1`$"),
        (None, TypeError, "None is of type NoneType"),
        (True, TypeError, "True is of type bool"),
        (0, ValueError, r"an int of 1 or more, found 0: leave out .* or write `features=1`"),
        ((3, -1), ValueError, r"ints of 1 or more, found \(3, -1\): .* `features=\(3, 1\)`"),
    ],
)
def test_sizes_that_are_wrong(value, kind, message):
    with pytest.raises(kind, match=f"Layer expects features to be .*{message}"):
        check_sizes(Layer(), features=value)


MADE_OF_SIZES = {
    "Linear in_features": lambda n: nnx.Linear(n, 2, rngs=nnx.Rngs(0)),
    "Linear out_features": lambda n: nnx.Linear(2, n, rngs=nnx.Rngs(0)),
    "LinearGeneral in_features": lambda n: nnx.LinearGeneral(
        (2, n), 3, axis=(-2, -1), rngs=nnx.Rngs(0)
    ),
    "LinearGeneral out_features": lambda n: nnx.LinearGeneral(2, (2, n), rngs=nnx.Rngs(0)),
    "LinearGeneral batch_axis": lambda n: nnx.LinearGeneral(
        2, 3, batch_axis={0: n}, rngs=nnx.Rngs(0)
    ),
    "Conv in_features": lambda n: nnx.Conv(n, 2, 3, rngs=nnx.Rngs(0)),
    "Conv out_features": lambda n: nnx.Conv(2, n, 3, rngs=nnx.Rngs(0)),
    "Conv kernel_size": lambda n: nnx.Conv(2, 3, n, rngs=nnx.Rngs(0)),
    "ConvTranspose in_features": lambda n: nnx.ConvTranspose(n, 2, 3, rngs=nnx.Rngs(0)),
    "ConvTranspose kernel_size": lambda n: nnx.ConvTranspose(2, 2, (3, n), rngs=nnx.Rngs(0)),
    "Einsum kernel_shape": lambda n: nnx.Einsum("ab,bc->ac", (n, 2), rngs=nnx.Rngs(0)),
    "Embed num_embeddings": lambda n: nnx.Embed(n, 2, rngs=nnx.Rngs(0)),
    "Embed features": lambda n: nnx.Embed(2, n, rngs=nnx.Rngs(0)),
    "LoRA in_features": lambda n: nnx.LoRA(n, 2, 3, rngs=nnx.Rngs(0)),
    "LoRA lora_rank": lambda n: nnx.LoRA(3, n, 3, rngs=nnx.Rngs(0)),
    "LSTMCell in_features": lambda n: nnx.LSTMCell(n, 3, rngs=nnx.Rngs(0)),
    "OptimizedLSTMCell in_features": lambda n: nnx.OptimizedLSTMCell(n, 3, rngs=nnx.Rngs(0)),
    "GRUCell hidden_features": lambda n: nnx.GRUCell(3, n, rngs=nnx.Rngs(0)),
    "SimpleCell hidden_features": lambda n: nnx.SimpleCell(3, n, rngs=nnx.Rngs(0)),
    "MultiHeadAttention num_heads": lambda n: nnx.MultiHeadAttention(n, 8, rngs=nnx.Rngs(0)),
    "MultiHeadAttention in_features": lambda n: nnx.MultiHeadAttention(2, n, rngs=nnx.Rngs(0)),
    "BatchNorm num_features": lambda n: nnx.BatchNorm(n or -1, rngs=nnx.Rngs(0)),
    "LayerNorm num_features": lambda n: nnx.LayerNorm(n or -1, rngs=nnx.Rngs(0)),
    "RMSNorm num_features": lambda n: nnx.RMSNorm(n or -1, rngs=nnx.Rngs(0)),
    "InstanceNorm num_features": lambda n: nnx.InstanceNorm(n or -1, rngs=nnx.Rngs(0)),
    "GroupNorm num_features": lambda n: nnx.GroupNorm(n or -1, rngs=nnx.Rngs(0)),
    "pooling window_shape": lambda n: nnx.max_pool(jnp.ones((1, 4, 4, 3)), n),
    "AdaptiveAvgPool output_shape": lambda n: nnx.AdaptiveAvgPool((None, n)),
}


@pytest.mark.parametrize("name", MADE_OF_SIZES)
def test_every_layer_names_the_size_that_is_wrong(name):
    """Zero is allowed where there may be nothing to normalise."""
    owner, argument = name.split()
    for value, kind in ((4.0, TypeError), (0, ValueError)):
        with pytest.raises(kind, match=f"{owner} expects {argument} to be .* found "):
            MADE_OF_SIZES[name](value)
