"""Whole programs, run on Weft and on the peer: the same numbers to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft

flax_nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

BOTH = pytest.mark.parametrize("nnx", [weft, flax_nnx], ids=["weft", "flax"])


def jit_forward(nnx: Any, seed: int, x: Any, features: int, num_calls: int) -> Any:
    """Calls a compiled layer several times; returns the last output, flattened."""
    model = nnx.Linear(x.shape[-1], int(features), rngs=nnx.Rngs(int(seed)))
    traces = 0

    @nnx.jit
    def fwd(model: Any, x: Any) -> Any:
        nonlocal traces
        traces += 1
        return model(x)

    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    for _ in range(int(num_calls)):
        y = fwd(model, x)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), before)
    np.testing.assert_allclose(y, model(x), rtol=1e-6)
    assert traces == 1
    return np.asarray(y).ravel()


def split_merge_round_trip(nnx: Any, seed: int, x: Any, features: int) -> Any:
    """Splits, merges and compares: sums of both outputs, and their difference."""
    model = nnx.Linear(x.shape[-1], int(features), rngs=nnx.Rngs(int(seed)))
    merged = nnx.merge(*nnx.split(model))
    assert merged is not model
    original, again = model(x), merged(x)
    return np.array([original.sum(), again.sum(), abs(original - again).max()])


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("shape", "features"), [((1, 1), 1), ((3, 4), 5), ((2, 3, 8), 2)])
def test_jit_forward(seed: int, shape: tuple[int, ...], features: int) -> None:
    x = jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
    found, expected = (jit_forward(nnx, seed, x, features, 3) for nnx in (weft, flax_nnx))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("shape", "features"), [((1, 1), 1), ((3, 4), 5), ((2, 3, 8), 2)])
def test_split_merge_round_trip(seed: int, shape: tuple[int, ...], features: int) -> None:
    x = jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
    found, expected = (split_merge_round_trip(nnx, seed, x, features) for nnx in (weft, flax_nnx))
    np.testing.assert_array_equal(found, expected)
    assert found[2] == 0.0
    assert found[0] == found[1]


def test_changing_the_merged_model_leaves_the_other() -> None:
    model = weft.Linear(2, 3, rngs=weft.Rngs(0))
    merged = weft.merge(*weft.split(model))
    before = np.asarray(model.kernel[...])
    merged.kernel[...] = jnp.zeros((2, 3))
    np.testing.assert_array_equal(model.kernel[...], before)
    model.bias[...] = jnp.ones(3)
    assert merged.bias[...].tolist() == [0.0, 0.0, 0.0]


# -- the article's programs


def dropout_model(nnx: Any) -> Any:
    class Model(nnx.Module):
        def __init__(self, rngs: Any):
            self.linear = nnx.Linear(4, 8, rngs=rngs)
            self.drop = nnx.Dropout(0.5)
            self.head = nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x: Any, rngs: Any) -> Any:
            return self.head(self.drop(nnx.relu(self.linear(x)), rngs=rngs))

    rngs = nnx.Rngs(params=0, dropout=1)
    return Model(rngs), rngs


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_rngs_handed_to_dropout(compiled: bool) -> None:
    outputs = []
    for nnx in (weft, flax_nnx):
        model, rngs = dropout_model(nnx)
        forward: Any = lambda model, x, rngs: model(x, rngs)  # noqa: E731
        forward = nnx.jit(forward) if compiled else forward
        x = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
        outputs.append([np.asarray(forward(model, x, rngs)) for _ in range(3)])
        assert int(rngs.dropout.count[...]) == 3
    for found, expected in zip(*outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not (outputs[0][0] == outputs[0][1]).all()


X, Y = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[2.0], [4.0], [6.0]])


def line(nnx: Any) -> tuple[Any, Any]:
    class Model(nnx.Module):
        def __init__(self, rngs: Any):
            self.linear = nnx.Linear(1, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.linear(x)

    model = Model(nnx.Rngs(0))
    return model, nnx.Optimizer(model, tx=optax.sgd(0.01), wrt=nnx.Param)


def make_step(nnx: Any) -> tuple[Callable[..., Any], list[int]]:
    traces: list[int] = []

    @nnx.jit
    def train_step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        traces.append(1)

        def loss_fn(model: Any) -> Any:
            return jnp.mean((model(x) - y) ** 2)

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    return train_step, traces


def test_a_line_through_three_points() -> None:
    results = {}
    for nnx, steps in ((weft, 1000), (flax_nnx, 50)):
        model, optimizer = line(nnx)
        train_step, traces = make_step(nnx)
        losses = np.array([train_step(model, optimizer, X, Y) for _ in range(steps)])
        assert len(traces) == 1
        results[nnx] = losses[:50]
        if nnx is weft:
            assert losses[-1] < 1e-3
            np.testing.assert_allclose(model(jnp.array([[4.0]])), [[8.0]], atol=0.1)
    np.testing.assert_array_equal(results[weft], results[flax_nnx])


def test_another_layer_and_another_batch_are_traced_again() -> None:
    results = []
    for nnx in (weft, flax_nnx):
        model, optimizer = line(nnx)
        train_step, traces = make_step(nnx)
        losses = [train_step(model, optimizer, X, Y)]
        x, y = jnp.concatenate([X, X]), jnp.concatenate([Y, Y])
        losses += [train_step(model, optimizer, x, y) for _ in range(2)]
        assert len(traces) == 2

        class Scaled(nnx.Module):
            def __init__(self, inner: Any):
                self.inner = inner
                self.scale = 2.0

            def __call__(self, x: Any) -> Any:
                return self.inner(x) * self.scale

        model.linear = Scaled(nnx.Linear(1, 1, rngs=nnx.Rngs(3)))
        optimizer = nnx.Optimizer(model, tx=optax.sgd(0.01), wrt=nnx.Param)
        losses += [train_step(model, optimizer, X, Y) for _ in range(2)]
        assert len(traces) == 3
        model.linear.scale = 3.0
        losses.append(train_step(model, optimizer, X, Y))
        assert len(traces) == 4
        results.append(np.array(losses))
    np.testing.assert_array_equal(*results)


@BOTH
def test_the_programs_run_alone(nnx: Any) -> None:
    assert jit_forward(nnx, 0, X, 2, 1).shape == (6,)
    assert split_merge_round_trip(nnx, 0, X, 2)[2] == 0.0
