"""Tokens that are spread over devices: the gradient of the kernel is added up once."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import weft as nnx
from tests.devices import make_mesh
from weft.nn import token_shards

P = jax.P
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit


def arrays():
    random = np.random.default_rng(0)
    shapes = ((4, 6, 8), (8, 16), (16,))
    hidden, kernel, bias = (jnp.asarray(random.normal(size=s), jnp.float32) for s in shapes)
    return (hidden, kernel, bias), jnp.asarray(random.integers(0, 16, (4, 6)), jnp.int32)


def gradients(reduction, **options):
    def loss(given, labels):
        hidden, kernel, bias = given
        options_ = {"reduction": reduction, "chunk_size": 4, **options}
        return jnp.sum(nnx.linear_cross_entropy(hidden, kernel, labels, bias, **options_) ** 2)

    return jax.value_and_grad(loss)


def close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=3e-5, atol=3e-5),
        found,
        expected,
    )


@pytest.mark.parametrize("is_jitted", [False, True])
@pytest.mark.parametrize("kind, kernel", [(AUTO, P()), (AUTO, P("data")), (EXPLICIT, P("data"))])
def test_kernels_are_brought_together(kind, kernel, is_jitted):
    given, labels = arrays()
    mesh = make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)
    options = {"token_axes": "data"} if kind is AUTO else {}
    for reduction in ("mean", "none"):
        expected = gradients(reduction)(given, labels)
        with jax.set_mesh(mesh):
            places = (P("data"), kernel, P())
            put = [
                jax.device_put(x, NamedSharding(mesh, place))
                for x, place in zip(given, places, strict=True)
            ]
            at = jax.device_put(labels, NamedSharding(mesh, P("data")))
            run = gradients(reduction, **options)
            close((jax.jit(run) if is_jitted else run)(put, at), (expected[0], list(expected[1])))


@pytest.mark.parametrize("kind", [AUTO, EXPLICIT])
def test_devices_exchange_gradients_once(kind):
    mesh = make_mesh((4,), ("data",), axis_types=(kind,))
    given, labels = arrays()
    options = {"token_axes": ("data",)} if kind is AUTO else {}
    with jax.set_mesh(mesh):
        places = (P("data"), P(), P())
        put = [
            jax.device_put(x, NamedSharding(mesh, place))
            for x, place in zip(given, places, strict=True)
        ]
        at = jax.device_put(labels, NamedSharding(mesh, P("data")))
        text = jax.jit(gradients("mean", **options)).lower(put, at).compile().as_text()
    assert " while(" in text
    parts = re.split(r"\n(?=\S)", text)
    within = [part for part in parts if "all-reduce" in part]
    assert within and all(part.startswith("ENTRY") for part in within)


def test_how_tokens_are_spread():
    hidden = jnp.ones((4, 6, 8))
    assert token_shards.spec_of_tokens(hidden, None) is None
    assert token_shards.spec_of_tokens(hidden, ("a", "b")) == P(("a", "b"))
    for kind, expected in ((AUTO, None), (EXPLICIT, P(("a", "b"), None))):
        mesh = make_mesh((2, 2), ("a", "b"), axis_types=(kind,) * 2)
        with jax.set_mesh(mesh):
            put = jax.device_put(hidden, NamedSharding(mesh, P(("a", "b"))))
            assert token_shards.spec_of_tokens(put, None) == expected
            features = jax.device_put(hidden, NamedSharding(mesh, P(None, None, "a")))
            assert token_shards.spec_of_tokens(features, None) is None
