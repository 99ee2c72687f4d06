import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


def random_init(key, shape, dtype):
    """Draws with NumPy, which compiles nothing."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def transpose(*args, **kwargs):
    return nnx.ConvTranspose(*args, kernel_init=random_init, rngs=nnx.Rngs(0), **kwargs)


def transpose_of(conv, **kwargs):
    """Returns the transposed layer of a Conv, with its kernel."""
    layer = transpose(
        conv.out_features,
        conv.in_features,
        conv.kernel_size,
        conv.strides,
        padding=conv.padding,
        kernel_dilation=conv.kernel_dilation,
        transpose_kernel=True,
        use_bias=False,
        **kwargs,
    )
    layer.kernel[...] = conv.kernel[...]
    return layer


def as_pytorch_defines_it(x, weights, stride, padding, output_padding, dilation):
    """Scatters each element of one image of one spatial axis, as PyTorch documents the layer."""
    x, weights = np.asarray(x), np.asarray(weights)  # (n, in), (in, out, k)
    n, k = len(x), weights.shape[-1]
    full = np.zeros(((n - 1) * stride + dilation * (k - 1) + 1 + output_padding, weights.shape[1]))
    for i, j in itertools.product(range(n), range(k)):
        full[i * stride + j * dilation] += x[i] @ weights[..., j]
    return full[padding : len(full) - padding]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "output_padding", "dilation"),
    [
        (3, 2, 1, 1, 1),
        (4, 2, 1, 0, 1),
        (3, 1, 1, 0, 1),
        (2, 3, 0, 2, 1),
        (3, 2, 2, 1, 2),
        (2, 2, 2, 0, 1),
    ],
)
def test_output_padding_gives_what_pytorch_computes(
    size, stride, padding, output_padding, dilation
):
    weights = np.random.default_rng(0).normal(size=(2, 3, size)).astype(np.float32)
    layer = transpose(
        2,
        3,
        (size,),
        stride,
        padding=padding,
        output_padding=output_padding,
        kernel_dilation=dilation,
        transpose_kernel=True,
        use_bias=False,
    )
    layer.kernel[...] = jnp.moveaxis(weights, (1, 0), (-2, -1))
    x = jax.random.normal(jax.random.key(1), (6, 2))
    expected = as_pytorch_defines_it(x, weights, stride, padding, output_padding, dilation)
    np.testing.assert_allclose(layer(x[None])[0], expected, rtol=1e-4, atol=1e-5)


GEOMETRIES = list(itertools.product((2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2), (7, 8)))


def test_output_padding_undoes_the_shape_of_a_convolution():
    for k, s, p, d, n in GEOMETRIES:
        span = (k - 1) * d + 1
        if n + 2 * p < span:
            continue
        conv = nnx.Conv(
            1, 1, (k,), s, padding=p, kernel_dilation=d, kernel_init=random_init, rngs=nnx.Rngs(0)
        )
        extra = (n + 2 * p - span) % s
        back = transpose_of(conv, output_padding=extra)
        x = jax.ShapeDtypeStruct((1, n, 1), jnp.float32)
        assert jax.eval_shape(lambda x: back(conv(x)), x).shape == (1, n, 1), (k, s, p, d, n)  # noqa: B023


def test_sizes_are_those_of_the_table():
    for k, s, p, d, n in GEOMETRIES:
        span = (k - 1) * d + 1
        expected = {
            "SAME": n * s,
            "CIRCULAR": n * s,
            "VALID": (n - 1) * s + max(span, s),
        }
        if p:
            expected = {p: (n - 1) * s + 2 - span + 2 * p}
        for padding, size in expected.items():
            if size <= 0:
                continue
            layer = transpose(1, 1, (k,), s, padding=padding, kernel_dilation=d)
            x = jax.ShapeDtypeStruct((1, n, 1), jnp.float32)
            assert jax.eval_shape(layer, x).shape == (1, size, 1), (padding, k, s, d, n)


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR", "VALID", 1, ((2, 0),)])
@pytest.mark.parametrize(
    ("size", "stride"), [(2, 1), (3, 1), (4, 1), (3, 3), (5, 3), (4, 2), (2, 3)]
)
def test_transposed_kernel_gives_the_transpose_of_a_convolution(size, stride, padding):
    conv = nnx.Conv(2, 3, (size,), stride, padding=padding, use_bias=False, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 12, 2))
    y, pullback = jax.vjp(conv, x)
    low, high = ((1, 1) if padding == 1 else (2, 0)) if not isinstance(padding, str) else (0, 0)
    options = {"output_padding": (12 + low + high - size) % stride}
    layer = transpose_of(conv, **({} if padding in ("SAME", "CIRCULAR") else options))
    cotangent = jax.random.normal(jax.random.key(2), y.shape)
    (expected,) = pullback(cotangent)
    np.testing.assert_allclose(layer(cotangent), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_any_number_of_batch_axes(batch):
    layer = transpose(2, 4, (3, 3), 2, padding="CIRCULAR")
    x = jax.random.normal(jax.random.key(1), (*batch, 4, 5, 2))
    outputs = layer(x)
    assert outputs.shape == (*batch, 8, 10, 4)
    flat = layer(x.reshape(-1, 4, 5, 2))
    np.testing.assert_array_equal(outputs.reshape(flat.shape), flat)


def test_metadata_and_preferred_element_type():
    layer = transpose(
        2,
        4,
        3,
        dtype=jnp.bfloat16,
        preferred_element_type=jnp.float32,
        kernel_metadata={"group": 1},
        bias_metadata={"group": 2},
    )
    assert (layer.kernel.group, layer.bias.group) == (1, 2)
    assert layer(jnp.ones((1, 5, 2))).dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (1, 2)}, "ConvTranspose has 1 spatial axes and expects strides"),
        ({"kernel_dilation": 0}, "expects kernel_dilation to be a positive int"),
        ({"padding": "CAUSAL"}, r"one of \('SAME', 'VALID', 'CIRCULAR'\), .* found 'CAUSAL'"),
        ({"padding": "REFLECT"}, r"one of \('SAME', 'VALID', 'CIRCULAR'\), .* found 'REFLECT'"),
        ({"mask": jnp.ones(3)}, r"a mask of the kernel's shape \(3, 2, 4\), found shape \(3,\)"),
        (
            {"strides": 2, "padding": 1, "output_padding": 2},
            r"each output_padding to be below .* \(2,\), found 2: `output_padding=\(N \+ low",
        ),
        ({"padding": 1, "output_padding": (0, 0)}, r"output_padding to be below .* found \(0, 0\)"),
        (
            {"padding": "SAME", "output_padding": 0},
            r"cannot combine padding='SAME' with output_padding=0: .* `padding=\(1,\)`",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        transpose(2, 4, (3,), **options)


def test_inputs_of_another_shape_are_refused():
    message = (
        r"ConvTranspose\(in_features=2, .* found shape \(1, 5, 3\): make it `nnx.ConvTranspose\(3"
    )
    with pytest.raises(ValueError, match=message):
        transpose(2, 4, (3,))(jnp.ones((1, 5, 3)))
