"""What makes round trips: a model, the change of it inside, and what is to be seen outside."""

import jax.numpy as jnp

import weft as nnx


class Model(nnx.Module):
    def __init__(self):
        self.first, self.second = (
            nnx.Linear(2, 2, rngs=nnx.Rngs(0)),
            nnx.Linear(2, 2, rngs=nnx.Rngs(1)),
        )
        self.steps, self.layers, self.label = nnx.Variable(jnp.array(0)), [self.first], "new"


def change(model):
    model.first, model.second = model.second, model.first
    model.steps[...] += 1
    model.layers.append(nnx.Linear(2, 2, rngs=nnx.Rngs(2)))
    model.me, model.label, model.extra = model, "changed", nnx.Param(jnp.ones(2))


def check(model, first, second):
    assert model.first is second and model.second is first
    assert model.layers[0] is first and type(model.layers[1]) is nnx.Linear
    assert model.me is model and model.label == "changed" and int(model.steps[...]) == 1
    assert float(model.extra.sum()) == 2
