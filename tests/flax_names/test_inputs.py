"""Transformations of JAX by hand, between `split_inputs` and `merge_inputs`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from weft.transforms import general

import weft as nnx
from tests.flax_names.trips import Model, change, check


def test_inputs_and_outputs_of_jit():
    @general.split_inputs
    @jax.jit
    @general.merge_inputs
    def step(model, x):
        change(model)
        return model.first(x), model, nnx.Param(x)

    model = Model()
    first, second = model.first, model.second
    expected = second(jnp.ones(2))
    y, same, made = step(model, jnp.ones(2))
    assert same is model and type(made) is nnx.Param
    np.testing.assert_array_equal(y, expected)
    check(model, first, second)


def test_inputs_of_nested_transformations():
    class Env(nnx.Pytree):
        def __init__(self):
            self.index, self.step = nnx.Variable(jnp.arange(4)), nnx.Variable(jnp.zeros(4, int))

    @general.merge_inputs
    def increment(env):
        env.step[...] += 1

    axes = (0, None)

    @general.split_inputs(ctxtag="outer")
    @functools.partial(jax.vmap, in_axes=axes, out_axes=(axes, None))
    @general.merge_inputs(ctxtag="outer")
    def f(env, model):
        cond = general.split_inputs(jax.lax.cond)
        cond(env.index[...] % 2 == 0, increment, general.merge_inputs(lambda env: None), env)

    env = Env()
    f(env, nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(env.step[...], [1, 0, 1, 0])
