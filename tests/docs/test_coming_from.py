"""What the page for users of PyTorch says of its numbers is so. Without PyTorch it is skipped."""

import numpy as np
import pytest

import weft as nnx

torch = pytest.importorskip("torch", reason="compares with PyTorch, `uv run --group torch pytest`")

RNGS = nnx.Rngs(0)
X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def of_torch(x):
    return torch.tensor(x.transpose(0, 3, 1, 2))


def same(layer, module):
    found = module(of_torch(X)).detach().numpy().transpose(0, 2, 3, 1)
    return np.allclose(layer(X), found, atol=1e-5)


def with_weights_of(module, layer):
    weights = {name: array.numpy() for name, array in module.state_dict().items()}
    nnx.load_weights(layer, weights)
    return layer


def test_padding_with_strides():
    module = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)
    conv = lambda **options: nnx.Conv(3, 5, (3, 3), strides=2, rngs=RNGS, **options)  # noqa: E731
    assert same(with_weights_of(module, conv(padding=1)), module)
    assert not same(with_weights_of(module, conv()), module)
    module = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert same(with_weights_of(module, nnx.Conv(3, 5, (3, 3), rngs=RNGS)), module)


def test_activations_pooling_and_losses():
    import optax

    assert same(lambda x: nnx.gelu(x, approximate=False), torch.nn.GELU())
    assert not same(nnx.gelu, torch.nn.GELU())
    assert same(nnx.MaxPool((2, 2), strides=(2, 2)), torch.nn.MaxPool2d(2))
    logits, labels = X[0, 0], np.arange(8) % 3
    expected = torch.nn.CrossEntropyLoss()(torch.tensor(logits), torch.tensor(labels))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    assert np.allclose(loss, expected, atol=1e-6)


def test_batch_norm():
    module, layer = torch.nn.BatchNorm2d(3), nnx.BatchNorm(3, momentum=0.9, rngs=RNGS)
    assert same(layer, module)
    n = X.size // 3
    assert np.allclose(layer.mean, module.running_mean, atol=1e-6)
    weight = 0.1 * (n / (n - 1) - 1) * X.reshape(-1, 3).var(0)
    assert np.allclose(layer.var + weight, module.running_var, atol=1e-6)
    assert nnx.BatchNorm(3, rngs=RNGS).momentum == 0.99


def test_epsilons():
    groups = {"num_groups": 3}
    for layer, module, ours in (
        (nnx.LayerNorm(6, rngs=RNGS), torch.nn.LayerNorm(6), 1e-6),
        (nnx.GroupNorm(6, **groups, rngs=RNGS), torch.nn.GroupNorm(3, 6), 1e-6),
        (nnx.BatchNorm(6, rngs=RNGS), torch.nn.BatchNorm1d(6), 1e-5),
    ):
        assert (layer.epsilon, module.eps) == (ours, 1e-5)
