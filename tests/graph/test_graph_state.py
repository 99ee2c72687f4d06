"""A GraphDef and a State in one value."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest

import weft as nnx


def layer() -> nnx.Linear:
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def test_a_mapping_that_knows_its_graphdef() -> None:
    model = layer()
    unpacked = nnx.unpack(model)
    assert list(unpacked) == ["bias", "kernel"]
    assert len(unpacked) == 2
    assert unpacked["kernel"] is model.kernel
    assert unpacked.kernel is model.kernel
    assert unpacked.graphdef == nnx.graphdef(model)
    assert unpacked.state == nnx.state(model)
    unpacked.bias = nnx.Param(jnp.ones(3))
    unpacked["extra"] = 1
    del unpacked["extra"]
    assert nnx.merge(unpacked).bias[...].tolist() == [1.0, 1.0, 1.0]
    assert model.bias[...].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(AttributeError, match="the State has no key 'other'"):
        _ = unpacked.other
    with pytest.raises(AttributeError):
        _ = unpacked.__other__


def test_a_pytree_whose_structure_is_static() -> None:
    traces = []

    @jax.jit
    def forward(unpacked: nnx.GraphState, x: jax.Array) -> jax.Array:
        traces.append(1)
        return nnx.merge(unpacked)(x)

    x = jnp.ones((1, 2))
    assert (forward(nnx.unpack(layer()), x) == layer()(x)).all()
    forward(nnx.unpack(layer()), x)
    assert len(traces) == 1
    doubled = jax.tree.map(lambda x: x * 2, nnx.unpack(layer()))
    assert (nnx.merge(doubled)(x) == 2 * layer()(x)).all()
    ((path, _), _) = jax.tree_util.tree_leaves_with_path(doubled)
    assert jax.tree_util.keystr(path) == "['bias'].value"


@pytest.mark.parametrize("graph", [True, False])
def test_gradients_of_unpacked_parameters_train_the_model(graph):
    model = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.5), wrt=nnx.Param)
    params, rest = nnx.unpack(model, nnx.Param, ...)

    def loss(params, rest):
        return nnx.merge(params, rest).bias.sum()

    grads = nnx.grad(loss, graph=graph)(params, rest)
    assert type(grads) is nnx.GraphState and list(grads) == ["bias", "scale"]
    optimizer.update(model, grads)
    assert model.bias[...].tolist() == [-0.5, -0.5]
