# pyright: basic, reportUnnecessaryTypeIgnoreComment=true
"""Functions that do not say what they take: nothing in them is an error, and results have types."""

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import optax

import weft as nnx

X = jnp.ones((4, 2))


def make() -> nnx.Linear:
    return nnx.Linear(2, 1, rngs=nnx.Rngs(0))


def gradients() -> None:
    model = make()
    loss, grads = nnx.value_and_grad(lambda m: jnp.mean(m(X) ** 2))(model)
    assert_type(loss, jax.Array)
    optimizer = nnx.Optimizer(model, tx=optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(model, grads)
    slope = nnx.grad(lambda x: jnp.sum(x**2))(X)
    assert_type(slope, Any)
    assert (X - 0.1 * slope).shape == X.shape
    weights = nnx.grad(lambda tree: jnp.sum(tree["w"]))({"w": X})
    assert weights["w"].shape == X.shape
    assert nnx.jit(nnx.grad(lambda x: x**2))(2.0) == 4.0
    assert nnx.vmap(nnx.grad(lambda x: x**2))(X[:, 0]).shape == (4,)
    _, aux = nnx.grad(lambda m, x: (m(x).sum(), 1), has_aux=True)(model, X)
    assert aux == 1


def others() -> None:
    model = make()
    assert_type(nnx.jit(lambda x: jnp.sum(x))(X), jax.Array)
    assert_type(nnx.vmap(lambda m, x: jnp.sum(x), in_axes=(None, 0))(model, X), jax.Array)
    assert_type(nnx.remat(lambda m, x: jnp.sum(m(x)))(model, X), jax.Array)
    assert_type(nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0))), nnx.Linear)
    assert_type(nnx.cond(True, lambda x: 2 * x, lambda x: x, X), jax.Array)
    run = nnx.scan(lambda c, x: (c + x, x), in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    total, _ = run(jnp.zeros(2), X)
    assert total.shape == (2,)
    split = nnx.Sequential(lambda x: x + 1, nnx.relu, lambda x: (x, x))
    first, _ = split(X)
    assert first.shape == X.shape
