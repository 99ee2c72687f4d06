"""The lift: what comes out of a call besides the laws' table."""

import jax.numpy as jnp

import weft as nnx


def test_a_changed_class_comes_out():
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.relu)
    layer = model.layers[0]

    @nnx.jit
    def adapt(model, rngs):
        nnx.lora(model, ..., 2, rngs=rngs)

    adapt(model, nnx.Rngs(1))
    assert model.layers[0] is layer
    assert isinstance(layer, nnx.LoRALinear)
    assert layer(jnp.ones((1, 2))).shape == (1, 2)
