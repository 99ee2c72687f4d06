import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh


def random_init(key, shape, dtype):
    """Draws with NumPy, which compiles nothing."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def conv(*args, **kwargs):
    return nnx.Conv(2, 4, *args, kernel_init=random_init, rngs=nnx.Rngs(0), **kwargs)


def by_hand(x, kernel, pads, *, mode="constant", stride=1, dilation=1):
    """Convolves one image of one spatial axis in NumPy."""
    x = np.pad(np.asarray(x), [pads, (0, 0)], mode=mode)
    kernel = np.asarray(kernel)
    span = (len(kernel) - 1) * dilation + 1
    windows = [x[i : i + span : dilation] for i in range(0, len(x) - span + 1, stride)]
    return np.stack([np.einsum("ki,kio->o", window, kernel) for window in windows])


@pytest.mark.parametrize(
    ("padding", "pads", "mode"),
    [
        ("SAME", (2, 2), "constant"),
        ("same", (2, 2), "constant"),
        ("VALID", (0, 0), "constant"),
        ("CIRCULAR", (2, 2), "wrap"),
        ("REFLECT", (2, 2), "reflect"),
        ("CAUSAL", (4, 0), "constant"),
        (1, (1, 1), "constant"),
        (((0, 3),), (0, 3), "constant"),
    ],
)
def test_paddings(padding, pads, mode):
    layer = conv((3,), kernel_dilation=2, padding=padding, use_bias=False)
    x = jax.random.normal(jax.random.key(1), (7, 2))
    expected = by_hand(x, layer.kernel[...], pads, mode=mode, dilation=2)
    np.testing.assert_allclose(layer(x[None])[0], expected, rtol=1e-5, atol=1e-6)


def test_causal_outputs_do_not_see_later_inputs():
    layer = conv((3,), padding="CAUSAL", kernel_dilation=2)
    gradient = jax.grad(lambda x: layer(x)[0, 3].sum())(jnp.ones((1, 7, 2)))
    assert (gradient[0, 4:] == 0).all()
    assert (gradient[0, 3] != 0).all()


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
def test_named_padding_of_dilated_inputs(padding, dilation):
    layer = conv((3,), 2, padding=padding, input_dilation=dilation)
    x = jax.random.normal(jax.random.key(1), (1, 4, 2))
    dilated = jnp.zeros((1, 4 * dilation - dilation + 1, 2)).at[:, ::dilation].set(x)
    expected = conv((3,), 2, padding=padding)(dilated)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_groups_are_convolutions_beside_each_other():
    layer = conv((3,), feature_group_count=2, bias_init=nnx.initializers.normal())
    x = jax.random.normal(jax.random.key(1), (1, 5, 2))
    parts = []
    for group in range(2):
        part = nnx.Conv(1, 2, (3,), rngs=nnx.Rngs(0))
        part.kernel[...] = layer.kernel[..., 2 * group : 2 * group + 2]
        part.bias[...] = layer.bias[2 * group : 2 * group + 2]
        parts.append(part(x[..., group : group + 1]))
    np.testing.assert_allclose(layer(x), jnp.concatenate(parts, -1), rtol=1e-5)


@pytest.mark.parametrize("kind", [jnp.float32, jnp.int32, jnp.bool_])
def test_mask_switches_weights_off(kind):
    mask = jnp.asarray(np.arange(3) == 1, kind)[:, None, None] * jnp.ones((3, 2, 4), kind)
    layer = conv((3,), mask=mask, use_bias=False)
    x = jax.random.normal(jax.random.key(1), (1, 5, 2))
    np.testing.assert_allclose(layer(x), x @ layer.kernel[1], rtol=1e-5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_any_number_of_batch_axes(batch):
    layer = conv((3, 3), 2)
    x = jax.random.normal(jax.random.key(1), (*batch, 5, 6, 2))
    outputs = layer(x)
    assert outputs.shape == (*batch, 3, 3, 4)
    flat = layer(x.reshape(-1, 5, 6, 2))
    np.testing.assert_array_equal(outputs.reshape(flat.shape), flat)


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
def test_out_sharding_fits_any_number_of_batch_axes(batch):
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    spec = jax.sharding.PartitionSpec(
        *("a" for _ in batch[:1]), *(None,) * len(batch[1:]), None, "b"
    )
    with jax.set_mesh(mesh):
        outputs = conv((3,))(jnp.ones((*batch, 6, 2)), spec)
    assert outputs.sharding.spec == spec


def test_metadata_and_preferred_element_type():
    layer = conv(
        3,
        dtype=jnp.bfloat16,
        preferred_element_type=jnp.float32,
        kernel_metadata={"group": 1},
        bias_metadata={"group": 2},
    )
    assert (layer.kernel.group, layer.bias.group) == (1, 2)
    assert layer(jnp.ones((1, 5, 2))).dtype == jnp.float32


def test_function_of_the_user_is_used():
    calls = []

    def conv_general_dilated(*args, **kwargs):
        calls.append((*args[2:], *sorted(kwargs)))
        return jax.lax.conv_general_dilated(*args, **kwargs)

    conv((3,), conv_general_dilated=conv_general_dilated)(jnp.ones((1, 5, 2)))
    names = "dimension_numbers feature_group_count lhs_dilation precision rhs_dilation".split()
    assert calls == [((1,), "SAME", *names)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nnx.Conv(4, 6, 3, feature_group_count=4, rngs=nnx.Rngs(0)),
            r"feature_group_count to divide in_features=4 and out_features=6, found .*=4: 2 is the",
        ),
        (lambda: conv((3, 3), (1, 2, 3)), r"Conv has 2 spatial axes and expects strides to be"),
        (lambda: conv((3,), kernel_dilation=0), r"expects kernel_dilation to be a positive int"),
        (lambda: conv((3,), input_dilation=(1, 1)), r"expects input_dilation to be a positive int"),
        (lambda: conv((3,), padding="CYCLIC"), r"one of \('SAME', 'SAME_LOWER', .* found 'CYCLIC'"),
        (lambda: conv((3, 3), padding="CAUSAL"), r"kernel_size=\(3, 3\) expects .* found 'CAUSAL'"),
        (
            lambda: conv((3, 3), padding=(1,)),
            r"padding for 2 spatial axes, found \(1,\): pass a name",
        ),
        (
            lambda: conv((3,), mask=jnp.ones((3, 2, 1))),
            r"a mask of the kernel's shape \(3, 2, 4\), found shape \(3, 2, 1\): `mask=jnp.ones\(",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("shape", [(1, 5, 3), (5,), ()])
def test_inputs_of_another_shape_are_refused(shape):
    message = (
        r"Conv\(in_features=2, out_features=4, kernel_size=\(3,\)\) expects inputs of shape "
        r"\(\.\.\., space, 2\), channels last, found shape .*: make it `nnx.Conv\("
    )
    with pytest.raises(ValueError, match=message):
        conv((3,))(jnp.ones(shape))


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT", "CAUSAL"])
def test_padding_between_dilated_inputs_is_refused(padding):
    layer = conv((3,), input_dilation=2, padding=padding)
    message = (
        rf"cannot pad with '{padding}' between dilated inputs, found input_dilation=2: pad the"
    )
    with pytest.raises(ValueError, match=message):
        layer(jnp.ones((1, 5, 2)))
