"""What a running transform forbids of a Variable, and how it names the Variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx

X = jnp.ones((2, 3))


class Counting(nnx.Module):
    def __init__(self) -> None:
        self.counts = [nnx.Variable(jnp.zeros(()))]
        self.child = nnx.Dict(label="a")

    def __call__(self, x: Any) -> Any:
        self.counts[0][...] += 1
        return x.sum()

    def method(self, x: Any) -> Any:
        return jax.grad(lambda x: self(x))(x)


INNER: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "jax.grad": (lambda m, x: jax.grad(lambda x: m(x))(x), "a JAX transformation"),
    "jax.vmap": (lambda m, x: jax.vmap(lambda x: m(x))(x), "a JAX transformation"),
    "nnx.grad": (lambda m, x: nnx.grad(lambda x: m(x))(x), "nnx.grad of"),
    "nnx.vmap": (lambda m, x: nnx.vmap(lambda x: m(x))(x), "nnx.vmap of"),
    "nnx.remat": (lambda m, x: nnx.remat(lambda x: m(x))(x), "nnx.remat of"),
}


@pytest.mark.parametrize("name", INNER)
def test_a_write_from_an_inner_transform_names_the_path_and_who_has_it(name: str) -> None:
    function, inside = INNER[name]

    def outer(model: Any, x: Any) -> Any:
        return function(model, x)

    found = rf"\(model\.counts\[0\] of nnx\.jit of '.*outer'\) from inside {inside}"
    with pytest.raises(nnx.TraceContextError, match=found):
        nnx.jit(outer)(Counting(), X)


def test_a_write_from_inside_a_method() -> None:
    found = (
        r"cannot write Variable of shape \(\) \(self\.counts\[0\] of nnx\.jit of 'Counting.method"
    )
    with pytest.raises(nnx.TraceContextError, match=found):
        nnx.jit(Counting().method)(X)


def test_a_change_of_an_object_from_an_inner_transform() -> None:
    def outer(model: Any, x: Any) -> Any:
        return jax.vmap(lambda x: setattr(model.child, "label", "b"))(x)

    found = r"cannot change model\.child\.label of nnx\.jit of '.*outer' from inside a JAX transf"
    with pytest.raises(nnx.TraceContextError, match=found):
        nnx.jit(outer)(Counting(), X)


def test_what_no_transform_was_given_is_named_by_the_line_that_made_it() -> None:
    model = Counting()
    with pytest.raises(nnx.TraceContextError, match=r"\(made at .*test_guard\.py:\d+\)"):
        nnx.jit(lambda x: model.counts[0].set_value(x))(X)
    with pytest.raises(nnx.TraceContextError, match=r"cannot change Counting\.counts from inside"):
        nnx.jit(lambda x: setattr(model, "counts", x))(X)


def test_a_write_that_does_not_fit_names_the_path() -> None:
    def outer(model: Any, x: Any) -> Any:
        model.counts[0][...] = x

    with pytest.raises(
        ValueError, match=r"a Variable of shape \(\) \(model\.counts\[0\] of nnx\.j"
    ):
        nnx.jit(outer)(Counting(), X)
