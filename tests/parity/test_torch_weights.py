"""Weights of PyTorch, loaded and saved back: the same outputs there and here, the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its group is `torch`")
safetensors_torch = pytest.importorskip("safetensors.torch")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def drawn(module):
    """Draws all weights and statistics anew: zeros and ones would hide mistakes."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.dtype == torch.float32:
                value.uniform_(0.5, 1.5) if "var" in name else value.normal_()
    return module.eval()


def random(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def check(model, module, x, rules=None, *, tmp_path, run=None, channels=False, drop=()):
    """Loads from a file of PyTorch, compares outputs, and saves back to equal weights."""
    run = run or (lambda model, x: model(x))
    state = module.state_dict()
    safetensors_torch.save_file(
        {name: value.contiguous() for name, value in state.items()}, tmp_path / "a.safetensors"
    )
    report = nnx.load_weights(model, tmp_path / "a.safetensors", rules)
    assert report.fits
    model.eval()
    inputs = np.moveaxis(x, -1, 1) if channels else x
    with torch.no_grad():
        expected = module(torch.tensor(inputs))
    expected = (expected[0] if isinstance(expected, tuple) else expected).numpy()
    found = np.asarray(run(model, jnp.asarray(x)))
    expected = np.moveaxis(expected, 1, -1) if channels else expected
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    nnx.save_weights(model, tmp_path / "b.safetensors", rules)
    back = safetensors_torch.load_file(tmp_path / "b.safetensors")
    assert back.keys() == {name for name in state if "num_batches" not in name}
    for name, value in back.items():
        if name not in drop:
            assert torch.equal(value, state[name]), name
    module.load_state_dict(back, strict="num_batches" not in str(state.keys()))
    with torch.no_grad():
        again = module(torch.tensor(inputs))
    again = (again[0] if isinstance(again, tuple) else again).numpy()
    again = np.moveaxis(again, 1, -1) if channels else again
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-6)


def test_convolutional_network(tmp_path):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, padding=1, groups=2),
        torch.nn.BatchNorm2d(8),
        torch.nn.PReLU(),
        torch.nn.Conv2d(8, 6, (3, 2), stride=2),
        torch.nn.GroupNorm(2, 6),
    )
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Conv(4, 8, (3, 3), padding=1, feature_group_count=2, rngs=rngs),
        nnx.BatchNorm(8, rngs=rngs),
        nnx.PReLU(),
        nnx.Conv(8, 6, (3, 2), strides=2, padding="VALID", rngs=rngs),
        nnx.GroupNorm(6, 2, epsilon=1e-5, rngs=rngs),
    )
    check(model, drawn(module), random(2, 9, 8, 4), tmp_path=tmp_path, channels=True)


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_transposed_convolution(transpose_kernel, tmp_path):
    module = drawn(torch.nn.ConvTranspose2d(3, 5, (3, 2), stride=2, padding=1))
    model = nnx.ConvTranspose(
        3,
        5,
        (3, 2),
        strides=2,
        padding=1,
        output_padding=0,
        transpose_kernel=transpose_kernel,
        rngs=nnx.Rngs(0),
    )
    check(model, module, random(2, 6, 5, 3), tmp_path=tmp_path, channels=True)


CONVOLUTIONS = {
    f"{rank}d, {groups} groups, dilation {dilation}, stride {stride}": (
        rank,
        groups,
        dilation,
        stride,
    )
    for rank in (1, 2, 3)
    for groups, dilation, stride in ((1, 1, 1), (2, 2, 1), (4, 1, 2), (2, 2, 3))
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case, tmp_path):
    rank, groups, dilation, stride = CONVOLUTIONS[case]
    size = (3, 2, 1)[:rank]
    kind = [torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d][rank - 1]
    module = kind(4, 8, size, stride=stride, padding=1, dilation=dilation, groups=groups)
    model = nnx.Conv(
        4,
        8,
        size,
        strides=stride,
        padding=1,
        kernel_dilation=dilation,
        feature_group_count=groups,
        rngs=nnx.Rngs(0),
    )
    x = random(2, *(9, 8, 7)[:rank], 4)
    check(model, drawn(module), x, tmp_path=tmp_path, channels=True)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("options", [(1, 1, 0), (2, 1, 1), (3, 2, 2)])
def test_transposed_convolutions_with_output_padding(options, rank, tmp_path):
    stride, dilation, extra = options
    kind = [torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d][rank - 1]
    size = (3, 2, 4)[:rank]
    module = kind(
        3, 5, size, stride=stride, padding=1, output_padding=extra, dilation=dilation, bias=False
    )
    model = nnx.ConvTranspose(
        3,
        5,
        size,
        strides=stride,
        padding=1,
        output_padding=extra,
        kernel_dilation=dilation,
        use_bias=False,
        rngs=nnx.Rngs(0),
    )
    x = random(2, *(6, 5, 4)[:rank], 3)
    check(model, drawn(module), x, tmp_path=tmp_path, channels=True)


PLAIN = {"use_scale": False, "use_bias": False}
NORMS = {
    "batch": (torch.nn.BatchNorm2d(4), lambda **o: nnx.BatchNorm(4, **o)),
    "batch, plain": (
        torch.nn.BatchNorm2d(4, affine=False),
        lambda **o: nnx.BatchNorm(4, **PLAIN, **o),
    ),
    "group": (torch.nn.GroupNorm(2, 4), lambda **o: nnx.GroupNorm(4, 2, **o)),
    "group, plain": (
        torch.nn.GroupNorm(2, 4, affine=False),
        lambda **o: nnx.GroupNorm(4, 2, **PLAIN, **o),
    ),
    "instance": (torch.nn.InstanceNorm2d(4, affine=True), lambda **o: nnx.InstanceNorm(4, **o)),
    "instance, plain": (torch.nn.InstanceNorm2d(4), lambda **o: nnx.InstanceNorm(4, **PLAIN, **o)),
}


@pytest.mark.parametrize("case", NORMS)
def test_normalization_of_channels(case, tmp_path):
    module, make = NORMS[case]
    model = make(epsilon=1e-5, rngs=nnx.Rngs(0))
    check(model, drawn(module), random(2, 5, 6, 4), tmp_path=tmp_path, channels=True)


@pytest.mark.parametrize("affine", [True, False])
def test_normalization_of_features(affine, tmp_path):
    plain = {} if affine else PLAIN
    module = torch.nn.LayerNorm(4, elementwise_affine=affine)
    model = nnx.LayerNorm(4, epsilon=1e-5, **plain, rngs=nnx.Rngs(0))
    check(model, drawn(module), random(5, 4), tmp_path=tmp_path)
    module = torch.nn.RMSNorm(4, eps=1e-5, elementwise_affine=affine)
    model = nnx.RMSNorm(4, epsilon=1e-5, use_scale=affine, rngs=nnx.Rngs(0))
    check(model, drawn(module), random(5, 4), tmp_path=tmp_path)


class Encoder(nnx.Module):
    """What `torch.nn.TransformerEncoderLayer` computes, by the same names."""

    def __init__(self, rngs):
        self.self_attn = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.linear1 = nnx.Linear(16, 32, rngs=rngs)
        self.linear2 = nnx.Linear(32, 16, rngs=rngs)
        self.norm1 = nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs)
        self.norm2 = nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        x = self.norm1(x + self.self_attn(x))
        return self.norm2(x + self.linear2(nnx.relu(self.linear1(x))))


def test_transformer_block(tmp_path):
    module = drawn(torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True))
    check(Encoder(nnx.Rngs(0)), module, random(2, 5, 16), tmp_path=tmp_path)


def test_transformer_of_stacked_blocks(tmp_path):
    module = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 3, enable_nested_tensor=False
    )
    model = nnx.eval_shape(lambda: nnx.Stack(Encoder, 3, rngs=nnx.Rngs(0)))
    rules = {"layers.{i}": "[{i}]"}
    check(model, drawn(module), random(2, 5, 16), rules, tmp_path=tmp_path)


def test_attention_with_keys_of_another_size(tmp_path):
    module = torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
    model = nnx.MultiHeadAttention(2, 8, in_kv_features=6, decode=False, rngs=nnx.Rngs(0))
    q, kv = random(2, 5, 8), random(2, 4, 6)
    nnx.load_weights(model, drawn(module).state_dict())
    with torch.no_grad():
        expected = module(*map(torch.tensor, (q, kv, kv)))[0].numpy()
    np.testing.assert_allclose(model(q, kv), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_lstm(cell, tmp_path):
    model = nnx.RNN(cell(3, 4, rngs=nnx.Rngs(0)))
    module = drawn(torch.nn.LSTM(3, 4, batch_first=True))
    check(model, module, random(2, 5, 3), tmp_path=tmp_path, drop=("bias_ih_l0", "bias_hh_l0"))
    saved = nnx.load(tmp_path / "b.safetensors")
    assert not saved["bias_hh_l0"].any()


def test_lstm_of_two_layers_in_both_directions(tmp_path):
    rngs = nnx.Rngs(0)

    def rnn(size):
        return nnx.RNN(nnx.OptimizedLSTMCell(size, 4, rngs=rngs))

    model = nnx.Sequential(*[nnx.Bidirectional(rnn(size), rnn(size)) for size in (3, 8)])
    module = drawn(torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True))
    rules = {
        "{name}_l{k}_reverse": "layers[{k}].backward_rnn.cell.{name}",
        "{name}_l{k}": "layers[{k}].forward_rnn.cell.{name}",
    }
    biases = [name for name in module.state_dict() if "bias" in name]
    check(model, module, random(2, 5, 3), rules, tmp_path=tmp_path, drop=biases)


def test_bidirectional_by_default(tmp_path):
    rngs = nnx.Rngs(0)
    model = nnx.Bidirectional(*[nnx.RNN(nnx.SimpleCell(3, 4, rngs=rngs)) for _ in range(2)])
    module = drawn(torch.nn.RNN(3, 4, bidirectional=True, batch_first=True))
    biases = [name for name in module.state_dict() if "bias" in name]
    check(model, module, random(2, 5, 3), tmp_path=tmp_path, drop=biases)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_gru_of_two_layers(bias, both_ways, tmp_path):
    rngs = nnx.Rngs(0)

    def rnn(size):
        cell = nnx.GRUCell(size, 4, rngs=rngs)
        cell.dense_i = nnx.Linear(size, 12, use_bias=bias, rngs=rngs)
        cell.dense_h = nnx.Linear(4, 12, use_bias=bias, rngs=rngs)
        return nnx.RNN(cell)

    if both_ways:
        model = nnx.Sequential(*[nnx.Bidirectional(rnn(size), rnn(size)) for size in (3, 8)])
        rules = {
            "{name}_l{k}_reverse": "layers[{k}].backward_rnn.cell.{name}",
            "{name}_l{k}": "layers[{k}].forward_rnn.cell.{name}",
        }
    else:
        model = nnx.Sequential(rnn(3), rnn(4))
        rules = {"{name}_l{k}": "layers[{k}].cell.{name}"}
    options = {"num_layers": 2, "bias": bias, "bidirectional": both_ways, "batch_first": True}
    check(model, drawn(torch.nn.GRU(3, 4, **options)), random(2, 5, 3), rules, tmp_path=tmp_path)


def gru(rngs):
    cell = nnx.GRUCell(3, 4, rngs=rngs)
    return nnx.RNN(cell)


def test_gru_with_its_second_bias(tmp_path):
    model = gru(nnx.Rngs(0))
    model.cell.dense_h = nnx.Linear(4, 12, rngs=nnx.Rngs(1))
    module = drawn(torch.nn.GRU(3, 4, batch_first=True))
    check(model, module, random(2, 5, 3), tmp_path=tmp_path)


def test_gru_without_its_second_bias(tmp_path):
    module = drawn(torch.nn.GRU(3, 4, batch_first=True))
    with pytest.raises(nnx.StructureError, match=r"`cell.dense_h = nnx.Linear\(4, 12, rngs=rngs\)"):
        nnx.load_weights(gru(nnx.Rngs(0)), module.state_dict())
    with torch.no_grad():
        module.bias_hh_l0[8:] = 0
    biases = ("bias_ih_l0", "bias_hh_l0")
    check(gru(nnx.Rngs(0)), module, random(2, 5, 3), tmp_path=tmp_path, drop=biases)


def test_embedding_and_low_precision(tmp_path):
    module = drawn(torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3))).bfloat16()
    model = nnx.Sequential(nnx.Embed(7, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    torch.save(module.state_dict(), tmp_path / "model.pt")
    nnx.load_weights(model, tmp_path / "model.pt", dtype=jnp.bfloat16)
    assert model.layers[1].kernel.dtype == jnp.bfloat16
    expected = module[0].weight.float().detach().numpy()
    assert (np.asarray(model.layers[0].embedding, np.float32) == expected).all()


def test_a_pickle_of_more_than_weights_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "model.pt")
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    before = jax.tree.leaves(nnx.state(model))
    with pytest.raises(nnx.CheckpointError, match="holds more than plain weights"):
        nnx.load_weights(model, tmp_path / "model.pt")
    assert all(
        (a == b).all() for a, b in zip(before, jax.tree.leaves(nnx.state(model)), strict=True)
    )
