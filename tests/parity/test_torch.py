"""Layers against PyTorch on the CPU: the same weights, outputs and gradients within rounding.

PyTorch keeps channels on axis 1 and its weights in another order, so that every comparison says how
an array of one library becomes that of the other. A *layout* is a function that turns an array of
PyTorch into Weft's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its group is `torch`")

Layout = Callable[[np.ndarray], np.ndarray]

RTOL = 1e-5


def same(x: np.ndarray) -> np.ndarray:
    return x


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


def transposed(x: np.ndarray) -> np.ndarray:
    return x.T


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numbers(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def with_random_parameters(module: Any) -> Any:
    """Draws parameters anew, because scales of one and biases of zero would hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def close(found: Any, expected: np.ndarray, what: str) -> None:
    """Checks that arrays agree; what cancels may be off by as much as a large element would be."""
    atol = RTOL * float(np.abs(expected).max())
    np.testing.assert_allclose(np.asarray(found), expected, RTOL, atol, err_msg=what)


def check(
    layer: nnx.Module,
    module: Any,
    x: np.ndarray,
    weights: Mapping[str, tuple[str, Layout]],
    *,
    layout: Layout = same,
    inverse: Layout = same,
) -> None:
    """Compares outputs and the gradients of inputs and parameters.

    Args:
      layer: the layer of Weft, which is given the weights of the other.
      module: the layer of PyTorch.
      x: the inputs, in Weft's layout.
      weights: for each parameter of `layer`, the name of PyTorch's and its layout.
      layout: the layout of inputs and outputs.
      inverse: its inverse.
    """
    parameters = dict(module.named_parameters())
    assert sorted(parameters) == sorted(name for name, _ in weights.values())
    variables = dict(nnx.to_flat_state(nnx.state(layer, nnx.Param)))
    for path, (name, to_ours) in weights.items():
        variables[path,].set_value(jnp.asarray(to_ours(numbers(parameters[name]))))

    inputs = torch.tensor(inverse(x), requires_grad=True)
    expected = module(inputs)
    cotangent = random(*expected.shape, seed=1)
    (expected * torch.tensor(cotangent)).sum().backward()

    def loss(layer: Any, x: Any) -> Any:
        y = layer(x)
        return jnp.sum(y * layout(cotangent)), y

    differentiated = nnx.grad(loss, argnums=(nnx.DiffState(0, nnx.Param), 1), has_aux=True)
    (gradient, of_inputs), y = nnx.jit(differentiated)(layer, jnp.asarray(x))
    close(y, layout(numbers(expected)), "outputs")
    close(of_inputs, layout(inputs.grad.numpy()), "gradient of the inputs")
    gradients = dict(nnx.to_flat_state(gradient))
    for path, (name, to_ours) in weights.items():
        found = gradients[path,][...]
        close(found, to_ours(parameters[name].grad.numpy()), f"gradient of {path}")


# -- normalisation

SCALE_AND_BIAS = {"scale": ("weight", same), "bias": ("bias", same)}
IMAGE = {"layout": channels_last, "inverse": channels_first}
MOMENTUM = 0.1  # of PyTorch: how much of a batch goes into the statistics; Weft keeps 1 - MOMENTUM


def batch_norms() -> tuple[nnx.BatchNorm, Any]:
    layer = nnx.BatchNorm(3, momentum=1 - MOMENTUM, epsilon=1e-5, rngs=nnx.Rngs(0))
    return layer, with_random_parameters(torch.nn.BatchNorm2d(3, eps=1e-5, momentum=MOMENTUM))


def test_batch_norm_in_training():
    layer, module = batch_norms()
    x = random(4, 5, 6, 3) * 2 + 1
    check(layer, module, x, SCALE_AND_BIAS, **IMAGE)
    close(layer.mean, module.running_mean.numpy(), "running mean")
    # PyTorch keeps the unbiased variance, Weft that by which the batch was divided.
    n = x[..., 0].size
    from_batch = (module.running_var.numpy() - (1 - MOMENTUM)) * (n - 1) / n
    close(layer.var, from_batch + (1 - MOMENTUM), "running variance")


def test_batch_norm_in_evaluation():
    layer, module = batch_norms()
    module.running_mean.copy_(torch.tensor(random(3, seed=2)))
    module.running_var.copy_(torch.tensor(random(3, seed=3) ** 2))
    layer.mean.set_value(jnp.asarray(module.running_mean.numpy()))
    layer.var.set_value(jnp.asarray(module.running_var.numpy()))
    layer.eval()
    module.eval()
    check(layer, module, random(4, 5, 6, 3), SCALE_AND_BIAS, **IMAGE)
    close(layer.mean, module.running_mean.numpy(), "running mean")
    close(layer.var, module.running_var.numpy(), "running variance")


def test_layer_norm():
    layer = nnx.LayerNorm(6, epsilon=1e-5, rngs=nnx.Rngs(0))
    module = with_random_parameters(torch.nn.LayerNorm(6))
    check(layer, module, random(2, 3, 6), SCALE_AND_BIAS)


def test_layer_norm_over_two_axes():
    layer = nnx.LayerNorm(
        6,
        epsilon=1e-5,
        reduction_axes=(-2, -1),
        use_scale=False,
        use_bias=False,
        rngs=nnx.Rngs(0),
    )
    module = torch.nn.LayerNorm((5, 6), elementwise_affine=False)
    check(layer, module, random(2, 5, 6), {})


def test_rms_norm():
    layer = nnx.RMSNorm(6, epsilon=1e-5, rngs=nnx.Rngs(0))
    module = with_random_parameters(torch.nn.RMSNorm(6, eps=1e-5))
    check(layer, module, random(2, 3, 6), {"scale": ("weight", same)})


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(groups):
    layer = nnx.GroupNorm(6, num_groups=groups, epsilon=1e-5, rngs=nnx.Rngs(0))
    module = with_random_parameters(torch.nn.GroupNorm(groups, 6))
    check(layer, module, random(2, 4, 5, 6), SCALE_AND_BIAS, **IMAGE)


@pytest.mark.parametrize("space", [(7,), (4, 5), (3, 4, 2)])
def test_instance_norm(space):
    layer = nnx.InstanceNorm(6, epsilon=1e-5, rngs=nnx.Rngs(0))
    kind = getattr(torch.nn, f"InstanceNorm{len(space)}d")
    module = with_random_parameters(kind(6, affine=True))
    check(layer, module, random(2, *space, 6), SCALE_AND_BIAS, **IMAGE)


def test_weight_norm():
    # Weft draws the scales apart from the kernel; PyTorch begins with the kernel's norms.
    inner = torch.nn.Linear(3, 4)
    module = with_random_parameters(torch.nn.utils.parametrizations.weight_norm(inner))
    layer = nnx.WeightNorm(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    parameters = dict(module.named_parameters())
    scales, kernel = (numbers(parameters[f"parametrizations.weight.original{i}"]) for i in (0, 1))
    layer.layer_instance.kernel.set_value(jnp.asarray(kernel.T))
    layer.layer_instance.bias.set_value(jnp.asarray(numbers(module.bias)))
    layer.scales["kernel",].set_value(jnp.asarray(scales[:, 0]))
    x = random(2, 3)
    close(layer(jnp.asarray(x)), numbers(module(torch.tensor(x))), "outputs")


def test_spectral_norm():
    inner = with_random_parameters(torch.nn.Linear(3, 4))
    kernel, bias = numbers(inner.weight).copy(), numbers(inner.bias).copy()
    module = torch.nn.utils.parametrizations.spectral_norm(inner, n_power_iterations=100)
    layer = nnx.SpectralNorm(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), n_steps=100, rngs=nnx.Rngs(0))
    layer.layer_instance.kernel.set_value(jnp.asarray(kernel.T))
    layer.layer_instance.bias.set_value(jnp.asarray(bias))
    x = random(2, 3)
    close(layer(jnp.asarray(x)), numbers(module(torch.tensor(x))), "outputs")


# -- convolution


def kernel_layout(w: np.ndarray) -> np.ndarray:
    return np.moveaxis(w, (1, 0), (-2, -1))


KERNEL_AND_BIAS = {"kernel": ("weight", kernel_layout), "bias": ("bias", same)}
PADDINGS = {"VALID": 0, "SAME": "same", "CIRCULAR": ("circular", "same"), 2: 2}
"""A padding of Weft, and what PyTorch calls it: a padding, or a mode and a padding."""


def convolutions(
    rank: int, groups: int, dilation: int, stride: int, padding: int | str
) -> tuple[nnx.Conv, Any]:
    size = (3, 2, 4)[:rank]
    theirs = PADDINGS[padding]
    mode, theirs = theirs if isinstance(theirs, tuple) else ("zeros", theirs)
    module = getattr(torch.nn, f"Conv{rank}d")(
        4, 6, size, stride, theirs, dilation, groups, padding_mode=mode
    )
    layer = nnx.Conv(
        4,
        6,
        size,
        stride,
        padding=padding,
        kernel_dilation=dilation,
        feature_group_count=groups,
        rngs=nnx.Rngs(0),
    )
    return layer, module


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("rank", "groups", "dilation", "stride", "padding"),
    [
        *((rank, 1, 1, 1, padding) for rank in (1, 2, 3) for padding in PADDINGS),
        *itertools.product((1, 2), (1, 2), (1, 2), (2,), ("VALID", 2)),
        (2, 1, 2, 1, "SAME"),
        (1, 2, 2, 1, "CIRCULAR"),
    ],
)
def test_conv(rank, groups, dilation, stride, padding):
    layer, module = convolutions(rank, groups, dilation, stride, padding)
    x = random(2, *(9, 8, 6)[:rank], 4)
    check(layer, module, x, KERNEL_AND_BIAS, **IMAGE)


@pytest.mark.parametrize("rank", [1, 2])
def test_conv_that_reflects(rank):
    size = (3, 5)[:rank]
    module = getattr(torch.nn, f"Conv{rank}d")(4, 6, size, padding="same", padding_mode="reflect")
    layer = nnx.Conv(4, 6, size, padding="REFLECT", rngs=nnx.Rngs(0))
    check(layer, module, random(2, *(9, 8)[:rank], 4), KERNEL_AND_BIAS, **IMAGE)


@pytest.mark.parametrize(
    ("rank", "stride", "padding", "output_padding", "dilation"),
    [
        (1, 2, 1, 1, 1),
        (1, 3, 0, 2, 2),
        (2, 1, 1, 0, 1),
        (2, 2, 1, 1, 2),
        (3, 2, 0, 0, 1),
    ],
)
def test_conv_transpose(rank, stride, padding, output_padding, dilation):
    size = (3, 4, 2)[:rank]
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(
        4, 6, size, stride, padding, output_padding, dilation=dilation
    )
    layer = nnx.ConvTranspose(
        4,
        6,
        size,
        stride,
        padding=padding,
        output_padding=output_padding,
        kernel_dilation=dilation,
        transpose_kernel=True,
        rngs=nnx.Rngs(0),
    )
    x = random(2, *(5, 4, 3)[:rank], 4)
    check(layer, module, x, KERNEL_AND_BIAS, **IMAGE)


# -- attention

MASK = np.random.default_rng(3).random((5, 7)) < 0.6
MASK[:, 0] = True  # a query that may see nothing has no meaning


@pytest.mark.parametrize(
    ("mask", "is_causal", "kv_heads"),
    [
        (None, False, 4),
        (MASK, False, 4),
        (None, True, 4),
        (MASK, False, 2),
        (np.broadcast_to(MASK, (2, 4, 5, 7)), False, 4),
    ],
    ids=["plain", "mask", "causal", "grouped", "mask per head"],
)
def test_dot_product_attention(mask, is_causal, kv_heads):
    arrays = [
        random(2, 5, 4, 3),
        random(2, 7, kv_heads, 3, seed=1),
        random(2, 7, kv_heads, 3, seed=2),
    ]
    tensors = [torch.tensor(a.swapaxes(1, 2).copy(), requires_grad=True) for a in arrays]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *tensors,
        attn_mask=None if mask is None else torch.tensor(mask.copy()),
        is_causal=is_causal,
        enable_gqa=kv_heads != 4,
    )
    cotangent = random(*expected.shape, seed=4)
    (expected * torch.tensor(cotangent)).sum().backward()

    def attend(*arrays: Any) -> Any:
        return nnx.dot_product_attention(*arrays, mask=mask, is_causal=is_causal)

    y, pullback = jax.vjp(attend, *map(jnp.asarray, arrays))
    close(y, numbers(expected).swapaxes(1, 2), "outputs")
    gradients = pullback(jnp.asarray(cotangent.swapaxes(1, 2)))
    for name, found, tensor in zip("qkv", gradients, tensors, strict=True):
        close(found, tensor.grad.numpy().swapaxes(1, 2), f"gradient of {name}")


def attentions(heads: int, features: int) -> tuple[nnx.MultiHeadAttention, Any]:
    """Returns attention of both libraries with the same weights."""
    module = torch.nn.MultiheadAttention(features, heads, batch_first=True)
    with_random_parameters(module)
    layer = nnx.MultiHeadAttention(heads, features, decode=False, rngs=nnx.Rngs(0))
    kernels, biases = numbers(module.in_proj_weight), numbers(module.in_proj_bias)
    for part, kernel, bias in zip(
        (layer.query, layer.key, layer.value),
        np.split(kernels, 3),
        np.split(biases, 3),
        strict=True,
    ):
        part.kernel.set_value(jnp.asarray(kernel.T.reshape(features, heads, -1)))
        part.bias.set_value(jnp.asarray(bias.reshape(heads, -1)))
    out = numbers(module.out_proj.weight).T.reshape(heads, -1, features)
    layer.out.kernel.set_value(jnp.asarray(out))
    layer.out.bias.set_value(jnp.asarray(numbers(module.out_proj.bias)))
    return layer, module


@pytest.mark.parametrize("kind", ["plain", "mask", "causal", "padding"])
def test_multi_head_attention(kind):
    layer, module = attentions(4, 8)
    x = random(2, 5, 8)
    lengths = np.array([5, 3])
    seen = {
        "plain": np.ones((1, 1, 5, 5), bool),
        "mask": MASK[None, None, :, :5],
        "causal": np.tril(np.ones((1, 1, 5, 5), bool)),
        "padding": (np.arange(5) < lengths[:, None])[:, None, None, :],
    }[kind]
    options: dict[str, Any] = {}
    if kind == "padding":
        options["key_padding_mask"] = torch.tensor(~seen[:, 0, 0])
    elif kind != "plain":
        options["attn_mask"] = torch.tensor(~seen[0, 0])
    tensor = torch.tensor(x, requires_grad=True)
    expected, weights = module(tensor, tensor, tensor, average_attn_weights=False, **options)
    cotangent = random(*expected.shape, seed=1)
    (expected * torch.tensor(cotangent)).sum().backward()

    @jax.jit
    def attend(x: Any, cotangent: Any) -> Any:
        mask = None if kind in ("plain", "causal") else jnp.asarray(seen)
        y, pullback = jax.vjp(lambda x: layer(x, mask=mask, is_causal=kind == "causal"), x)
        return y, pullback(cotangent)[0]

    y, gradient = attend(jnp.asarray(x), jnp.asarray(cotangent))
    close(y, numbers(expected), "outputs")
    close(gradient, tensor.grad.numpy(), "gradient of the inputs")
    captured = nnx.capture(
        lambda m: m(jnp.asarray(x), mask=seen, sow_weights=True), nnx.Intermediate
    )
    (sown,) = dict(nnx.to_flat_state(captured(layer)[1])).values()
    close(sown.value[0], numbers(weights), "attention weights")


def test_cross_attention():
    layer, module = attentions(2, 6)
    q, kv = random(2, 3, 6), random(2, 5, 6, seed=1)
    expected, _ = module(*map(torch.tensor, (q, kv, kv)))
    close(layer(jnp.asarray(q), jnp.asarray(kv)), numbers(expected), "outputs")


# -- recurrent layers


def load_recurrent(cell: Any, module: Any, suffix: str = "") -> Any:
    """Gives a cell the weights of a layer of PyTorch, whose two biases become one."""
    parameters = {name: numbers(p) for name, p in module.named_parameters()}
    bias = cell.dense_i.bias if cell.dense_i.bias is not None else cell.dense_h.bias
    cell.dense_i.kernel.set_value(jnp.asarray(parameters[f"weight_ih{suffix}"].T))
    cell.dense_h.kernel.set_value(jnp.asarray(parameters[f"weight_hh{suffix}"].T))
    bias.set_value(jnp.asarray(parameters[f"bias_ih{suffix}"] + parameters[f"bias_hh{suffix}"]))
    return cell


def without_second_bias(module: Any) -> Any:
    """Zeroes the bias that a GRU of PyTorch adds inside the reset gate; Weft's has none there."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("bias_hh"):
                parameter.zero_()
    return module


CELLS = {
    "LSTM": nnx.OptimizedLSTMCell,
    "GRU": nnx.GRUCell,
    "RNN": nnx.SimpleCell,
}


@pytest.mark.parametrize("name", CELLS)
def test_cells(name):
    module = without_second_bias(getattr(torch.nn, f"{name}Cell")(3, 4))
    cell = load_recurrent(CELLS[name](3, 4, rngs=nnx.Rngs(0)), module)
    x, hidden, cell_state = random(2, 3), random(2, 4, seed=1), random(2, 4, seed=2)
    if name == "LSTM":
        states = (cell_state, hidden)
        theirs = module(torch.tensor(x), (torch.tensor(hidden), torch.tensor(cell_state)))[::-1]
    else:
        states = (hidden,)
        theirs = (module(torch.tensor(x), torch.tensor(hidden)),)
    carry = tuple(map(jnp.asarray, states)) if len(states) > 1 else jnp.asarray(hidden)
    carry, y = cell(carry, jnp.asarray(x))
    for found, expected in zip(jax.tree.leaves(carry), theirs, strict=True):
        close(found, numbers(expected), "carry")
    close(y, numbers(theirs[-1]), "output")


def test_lstm_cell_with_a_kernel_per_gate():
    module = torch.nn.LSTMCell(3, 4)
    cell = nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0))
    parameters = {name: numbers(p) for name, p in module.named_parameters()}
    split = {name: np.split(value, 4) for name, value in parameters.items()}
    for i, gate in enumerate("ifgo"):
        inner = getattr(cell, "if_" if gate == "f" else f"i{gate}")
        outer = getattr(cell, f"h{gate}")
        inner.kernel.set_value(jnp.asarray(split["weight_ih"][i].T))
        outer.kernel.set_value(jnp.asarray(split["weight_hh"][i].T))
        outer.bias.set_value(jnp.asarray(split["bias_ih"][i] + split["bias_hh"][i]))
    x, hidden, cell_state = random(2, 3), random(2, 4, seed=1), random(2, 4, seed=2)
    expected = module(torch.tensor(x), (torch.tensor(hidden), torch.tensor(cell_state)))
    carry, y = cell((jnp.asarray(cell_state), jnp.asarray(hidden)), jnp.asarray(x))
    close(carry[0], numbers(expected[1]), "cell state")
    close(y, numbers(expected[0]), "output")


@pytest.mark.parametrize("name", CELLS)
def test_sequences_of_different_lengths_in_both_directions(name):
    module = getattr(torch.nn, name)(3, 4, batch_first=True, bidirectional=True)
    without_second_bias(module)
    forward, backward = (
        nnx.RNN(load_recurrent(CELLS[name](3, 4, rngs=nnx.Rngs(0)), module, suffix))
        for suffix in ("_l0", "_l0_reverse")
    )
    layer = nnx.Bidirectional(forward, backward, return_carry=True)
    x, lengths = random(3, 5, 3), np.array([5, 3, 1])
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(lengths), batch_first=True
    )
    outputs, last = module(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    hidden = last[0] if name == "LSTM" else last
    carries, y = layer(jnp.asarray(x), seq_lengths=jnp.asarray(lengths))
    inside = np.arange(5)[None, :, None] < lengths[:, None, None]
    close(np.where(inside, y, 0), numbers(expected), "outputs")
    for i, carry in enumerate(carries):
        close(carry[1] if name == "LSTM" else carry, numbers(hidden[i]), "last hidden state")
