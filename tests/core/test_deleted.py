"""Arrays that are gone: errors name the arguments that hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx

give_away = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)


def loss_fn(model: Any, x: Any) -> Any:
    return (x @ model.layers[0].kernel).sum()


def made() -> Any:
    return nnx.Dict(layers=[nnx.Linear(2, 2, rngs=nnx.Rngs(0))])


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "grad": lambda m, x: nnx.grad(loss_fn)(m, x),
    "vmap": lambda m, x: nnx.vmap(loss_fn, in_axes=(None, 0))(m, x),
    "remat": lambda m, x: nnx.remat(loss_fn)(m, x),
    "jit": nnx.jit(loss_fn),
    "jit without donation": nnx.jit(loss_fn, donate=None),
    "jit with static arguments": nnx.jit(loss_fn, static_argnames=()),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_that_were_donated(name: str) -> None:
    model, x = made(), jnp.ones((3, 2))
    give_away(x)
    with pytest.raises(
        (RuntimeError, ValueError), match=r"Gone are the arrays of x: they were don"
    ):
        CALLS[name](model, x)
    give_away(model)
    found = (
        r"Gone are the arrays of model\.layers\[0\]\.bias, model\.layers\[0\]\.kernel: .* `x = f"
    )
    with pytest.raises((RuntimeError, ValueError), match=found):
        CALLS[name](model, jnp.ones((3, 2)))


def test_other_errors_stay_as_they_are() -> None:
    def fails(model: Any, x: Any) -> Any:
        raise ValueError("the file was deleted")

    with pytest.raises(ValueError, match=r"^the file was deleted(\n|$)"):
        nnx.grad(fails)(made(), jnp.ones(2))
