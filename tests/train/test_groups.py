"""Groups of parameters: which transformation a parameter gets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft.train.groups import partition


def test_the_first_filter_that_selects_a_parameter_has_it():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tx = partition(
        model,
        nnx.Param,
        [(nnx.PathContains("bias"), optax.sgd(1.0)), (nnx.Param, optax.sgd(2.0))],
    )
    grads = {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_array_equal(updates["bias"], -np.ones(3))
    np.testing.assert_array_equal(updates["kernel"], np.full((2, 3), -2))


def test_a_variable_of_several_arrays_is_in_one_group():
    model = nnx.List([nnx.Param({"a": jnp.ones(2), "b": [jnp.ones(1)]}), nnx.Param(jnp.ones(3))])
    tx = partition(model, nnx.Param, [(nnx.PathContains(0), optax.sgd(1.0)), (..., optax.sgd(2.0))])
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    total = lambda model: sum(map(jnp.sum, jax.tree.leaves(model)))  # noqa: E731
    optimizer.update(model, nnx.grad(total)(model))
    np.testing.assert_array_equal(model[0].get_raw_value()["b"][0], [0])
    np.testing.assert_array_equal(model[1], -np.ones(3))
