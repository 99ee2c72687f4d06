"""Every layer under meshes whose axes are Auto, Explicit or Manual, against one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import weft as nnx
from tests.devices import make_mesh

P = jax.P
Make = Callable[[nnx.Rngs], Any]


class Called(nnx.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, x: Any) -> Any:
        return self.function(x)


class Looped(nnx.Module):
    """A layer in every kind of loop and branch, with carries that begin as zeros."""

    def __init__(self, rngs: nnx.Rngs):
        self.layer = nnx.Linear(4, 4, rngs=rngs)
        self.stacked = nnx.vmap(lambda rngs: nnx.Linear(4, 4, rngs=rngs))(rngs.split(2))
        self.count = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x: Any) -> Any:
        zeros = jnp.zeros(x.shape)

        def add(i: Any, carry: Any) -> Any:
            model, y = carry
            model.count[...] = model.count + 1.0
            return model, y + model.layer(x)

        _, y = nnx.fori_loop(0, 2, add, (self, zeros))
        carry = nnx.Carry
        y = nnx.scan(lambda y, m: y + m(x), in_axes=(carry, 0), out_axes=carry)(y, self.stacked)
        y = nnx.cond(self.count[...] > 1.0, lambda m, y: y + m(x), lambda m, y: y, self.layer, y)
        y = nnx.cond(self.count[...] > 1.0, lambda y: y * 0.0 + 1.0, jnp.zeros_like, zeros) + y
        more = nnx.while_loop(
            lambda c: c[1] < 2, lambda c: (c[0] + jax.lax.stop_gradient(x), c[1] + 1), (zeros, 0)
        )
        return nnx.remat(lambda m, y: m(y))(self.layer, y) + jax.lax.stop_gradient(more[0])


class WithLengths(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(4, 8, rngs=rngs), return_carry=True, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.rnn(x, seq_lengths=jnp.full(x.shape[0], 2))


def rnn(cell: Any, **options: Any) -> Make:
    return lambda rngs: nnx.RNN(cell(4, 8, rngs=rngs), rngs=rngs, **options)


def attention(**options: Any) -> Make:
    options = {"num_heads": 2, "in_features": 4, "decode": False, **options}
    return lambda rngs: nnx.MultiHeadAttention(rngs=rngs, **options)


def function(f: Callable[..., Any]) -> Make:
    return lambda rngs: Called(f)


ROWS, SEQUENCES, IMAGES = (4, 4), (4, 3, 4), (4, 4, 4, 4)
LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "Linear": (lambda r: nnx.Linear(4, 8, rngs=r), ROWS),
    "LinearGeneral": (lambda r: nnx.LinearGeneral((3, 4), (2, 2), axis=(1, 2), rngs=r), SEQUENCES),
    "Einsum": (lambda r: nnx.Einsum("bij,jk->bik", (4, 8), (8,), rngs=r), SEQUENCES),
    "Embed": (lambda r: nnx.Sequential(_tokens, nnx.Embed(8, 4, rngs=r)), SEQUENCES),
    "Conv": (lambda r: nnx.Conv(4, 8, (3, 3), rngs=r), IMAGES),
    "Conv in groups": (lambda r: nnx.Conv(4, 4, 3, feature_group_count=2, rngs=r), SEQUENCES),
    "Conv padded circularly": (lambda r: nnx.Conv(4, 4, 3, padding="CIRCULAR", rngs=r), SEQUENCES),
    "Conv padded causally": (lambda r: nnx.Conv(4, 4, 3, padding="CAUSAL", rngs=r), SEQUENCES),
    "ConvTranspose": (lambda r: nnx.ConvTranspose(4, 4, 3, padding="CIRCULAR", rngs=r), SEQUENCES),
    "BatchNorm": (lambda r: nnx.BatchNorm(4, rngs=r), ROWS),
    "LayerNorm": (lambda r: nnx.LayerNorm(4, rngs=r), ROWS),
    "RMSNorm": (lambda r: nnx.RMSNorm(4, rngs=r), ROWS),
    "GroupNorm": (lambda r: nnx.GroupNorm(4, 2, rngs=r), SEQUENCES),
    "InstanceNorm": (lambda r: nnx.InstanceNorm(4, rngs=r), SEQUENCES),
    "SpectralNorm": (lambda r: nnx.SpectralNorm(nnx.Linear(4, 8, rngs=r), rngs=r), ROWS),
    "WeightNorm": (lambda r: nnx.WeightNorm(nnx.Linear(4, 8, rngs=r), rngs=r), ROWS),
    "Dropout": (lambda r: nnx.Dropout(0.5, rngs=r), ROWS),
    "attention": (attention(), SEQUENCES),
    "attention with dropout": (attention(dropout_rate=0.5, deterministic=False), SEQUENCES),
    "LSTMCell": (rnn(nnx.LSTMCell), SEQUENCES),
    "OptimizedLSTMCell": (rnn(nnx.OptimizedLSTMCell, reverse=True, keep_order=True), SEQUENCES),
    "GRUCell": (rnn(nnx.GRUCell, return_carry=True), SEQUENCES),
    "SimpleCell": (rnn(nnx.SimpleCell, unroll=2), SEQUENCES),
    "RNN with lengths": (WithLengths, SEQUENCES),
    "Bidirectional": (
        lambda r: nnx.Bidirectional(rnn(nnx.GRUCell)(r), rnn(nnx.SimpleCell)(r), rngs=r),
        SEQUENCES,
    ),
    "LoRA": (lambda r: nnx.LoRALinear(4, 8, lora_rank=2, rngs=r), ROWS),
    "PReLU": (lambda r: nnx.PReLU(), ROWS),
    "Sequential": (lambda r: nnx.Sequential(nnx.Linear(4, 4, rngs=r), nnx.gelu), ROWS),
    "Stack": (lambda r: nnx.Stack(lambda rngs: nnx.Linear(4, 4, rngs=rngs), 2, rngs=r), ROWS),
    "pools": (
        function(lambda x: nnx.max_pool(x, (2, 2)) + nnx.avg_pool(x, (2, 2))),
        IMAGES,
    ),
    "loops": (Looped, ROWS),
}
RANDOM = {"Dropout", "attention with dropout"}  # other numbers in each shard
OF_THE_BATCH = {"BatchNorm"}  # other statistics in each shard


def _tokens(x: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.abs(x) * 3.0).astype(jnp.int32)


def make(name: str) -> tuple[nnx.Module, jax.Array]:
    layer, shape = LAYERS[name]
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    return layer(nnx.Rngs(0, params=1, dropout=2)), x


def loss(layer: Any, x: Any) -> Any:
    out = layer(x)
    return sum(jnp.sum(y**2) for y in jax.tree.leaves(out)), out


def results(layer: nnx.Module, x: jax.Array) -> Any:
    differentiate = nnx.value_and_grad(loss, has_aux=True, argnums=(nnx.DiffState(0, nnx.Param), 1))
    (_, out), grads = nnx.jit(differentiate)(layer, x)
    return out, grads, nnx.state(layer, nnx.BatchStat)


def assert_close(found: Any, expected: Any) -> None:
    close = lambda a, b: np.testing.assert_allclose(  # noqa: E731
        np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-5
    )
    jax.tree.map(close, found, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_over_four_devices(name: str) -> None:
    expected = results(*make(name))
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = make_mesh((4,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            layer, x = make(name)
            found = results(layer, jax.device_put(x, NamedSharding(mesh, P("data"))))
        assert_close(found, expected)
        for y in jax.tree.leaves(found[0]):
            assert jax.typeof(y).sharding.spec[0] == ("data" if kind is AxisType.Explicit else None)

    mesh = make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    layer, x = make(name)
    graphdef, state = nnx.split(layer)
    specs = {"in_specs": (P(), P("data")), "out_specs": P("data")}
    forward = jax.shard_map(lambda state, x: nnx.merge(graphdef, state)(x), mesh=mesh, **specs)
    out = jax.jit(forward)(state, x)
    if name not in RANDOM | OF_THE_BATCH:
        assert_close(out, expected[0])


def test_features_over_devices() -> None:
    """A carry takes whatever place the cell puts it in, that of its own parameters too."""
    layer, x = make("GRUCell")
    expected = layer(x)
    mesh = make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        layer, x = make("GRUCell")
        for _, v in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
            spec = P(*[None] * (v.ndim - 1), "model")
            v.set_value(jax.device_put(v.get_value(), NamedSharding(mesh, spec)))
        found = nnx.jit(lambda m, x: m(x))(layer, jax.device_put(x, NamedSharding(mesh, P("data"))))
    assert_close(found, expected)
    assert jax.typeof(found[1]).sharding.spec == P("data", None, "model")
