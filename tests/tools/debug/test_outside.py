"""What no call of a module made is found at the end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from tests.tools.debug.trunks import Plain, X
from weft.tools.debug.outside import Outside

NonFiniteError = nnx.debug.NonFiniteError


def made(objects, change, outputs=None, infinities=True):
    outside = Outside(objects, infinities)
    change()
    error = outside.error(outputs)
    return None if error is None else (error.path, error.phase)


def model():
    return nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.BatchNorm(2, rngs=nnx.Rngs(0)))


def put(variable, value):
    return lambda: variable.set_value(jnp.full(variable.shape, value))


def test_variables_that_were_written():
    net = model()
    bias = net.layers[0].bias
    assert made({"model": net}, lambda: None) is None
    assert made({"model": net}, put(bias, 1.0)) is None
    found = ("model.layers[0].bias", "outside")
    assert made({"model": net}, put(bias, jnp.nan)) == found
    assert made({"model": net}, put(bias, jnp.nan)) is None, "it was so before"
    put(bias, 0.0)()
    assert made({"model": net}, put(bias, jnp.inf)) == found
    put(bias, 0.0)()
    assert made({"model": net}, put(bias, jnp.inf), infinities=False) is None
    put(bias, 0.0)()
    assert made({("args", 0): [net]}, put(bias, jnp.nan)) == (
        "args[0][0].layers[0].bias",
        "outside",
    )


def test_only_infinite_parameters_count():
    net = model()
    assert made({"model": net}, put(net.layers[1].mean, jnp.inf)) is None
    assert made({"model": net}, put(net.layers[1].mean, jnp.nan)) is not None


def test_what_is_returned():
    outputs = ({"loss": jnp.float32(np.nan)}, jnp.ones(3), 3, None)
    assert made({}, lambda: None, outputs) == ("output[0].loss", "outside")
    assert made({}, lambda: None, (jnp.inf * jnp.ones(2), "text", np.arange(2))) is None
    assert made({"x": 3, "y": jnp.ones(2) * jnp.nan}, lambda: None) is None


def test_what_has_no_value_is_passed_over():
    gone = jnp.ones(2) * jnp.nan
    gone.delete()
    assert made({}, lambda: None, [gone, jax.ShapeDtypeStruct((2,), jnp.float32)]) is None
    assert made({"model": nnx.eval_shape(model)}, lambda: None) is None


# -- as `nnx.debug.nans` says it


def loss(model: Any, x: Any) -> Any:
    return jnp.mean(model(x) ** 2)


def test_what_an_optimizer_makes() -> None:
    model = Plain(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(jnp.nan), wrt=nnx.Param)

    @nnx.debug.nans()
    def step(model: Any, optimizer: Any) -> None:
        optimizer.update(model, nnx.jit(nnx.grad(loss))(model, X))

    with pytest.raises(
        NonFiniteError, match=r"NaN at the end, and no call of a module mad"
    ) as caught:
        step(model, optimizer)
    assert caught.value.phase == "outside" and caught.value.path.startswith("model.blocks[0]")


def test_a_result_that_no_module_made() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    log = nnx.jit(lambda model, x: {"loss": jnp.log(-jnp.abs(model(x).sum()))})
    with pytest.raises(
        NonFiniteError, match=r"^output\.loss f32\[\] has 1 NaN, and no call of a m"
    ):
        nnx.debug.nans()(log)(model, X)
