"""Writes into objects that plain JAX hands to a function, which does not return them."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import weft as nnx
from weft._variable import lost_writes

X = jnp.ones((3, 4))


class Counting(nnx.Module):
    def __init__(self) -> None:
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.count = nnx.Variable(jnp.zeros(()))

    def __call__(self, x: Any) -> Any:
        self.count[...] += 1
        return self.linear(x)


LINE = inspect.getsourcelines(Counting.__call__)[1] + 1


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    lost_writes._warned.clear()
    yield


def call(m: Any, x: Any) -> Any:
    return m(x)


def twice(m: Any, x: Any) -> Any:
    return m(m(x))


def gradients(m: Any, x: Any) -> Any:
    return jax.grad(lambda m: m(x).sum())(m)


def branches(m: Any, x: Any) -> Any:
    return jax.lax.cond(x.sum() > 0, lambda m: m(x), lambda m: m(x), m)


LOST: dict[str, Callable[[Any, Any], Any]] = {
    "jit": jax.jit(call),
    "jit, written twice": jax.jit(twice),
    "jit of nnx.jit": jax.jit(lambda m, x: nnx.jit(twice)(m, x)),
    "jit of a method": lambda m, x: jax.jit(Counting.__call__)(m, x),
    "grad": jax.grad(lambda m, x: m(x).sum()),
    "checkpoint": lambda m, x: nnx.jit(lambda m, x: jax.checkpoint(call)(m, x))(m, x),
    "grad in nnx.jit": nnx.jit(gradients),
    "cond in nnx.jit": nnx.jit(branches),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_write_warns_once_at_the_line_of_the_user(name: str) -> None:
    model = Counting()
    with pytest.warns(UserWarning, match="into a Variable of type Variable is lost") as seen:
        LOST[name](model, X)
        LOST[name](model, X[:2])
    (warning,) = seen
    assert warning.filename == __file__ and "`nnx.jit(f)(model, x)`" in str(warning.message)
    assert warning.lineno == LINE or name == "jit of nnx.jit"


def test_layers_warn_where_they_are_called() -> None:
    @jax.jit
    def normalise(layer: Any, x: Any) -> Any:
        return layer(x)

    line = normalise.__wrapped__.__code__.co_firstlineno + 2
    with pytest.warns(UserWarning, match="type BatchStat is lost") as seen:
        normalise(nnx.BatchNorm(4, rngs=nnx.Rngs(0)), X)
    assert {(w.filename, w.lineno) for w in seen} == {(__file__, line)}


def with_optimizer(m: Any, x: Any) -> Any:
    optimizer = nnx.Optimizer(m, optax.sgd(0.1), wrt=nnx.Param)

    @jax.jit
    def step(m: Any, optimizer: Any, x: Any) -> Any:
        optimizer.update(m, nnx.grad(lambda m: m(x).sum())(m))
        return m, optimizer

    return step(m, optimizer, x)


def on_a_copy(m: Any, x: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf * 2, m)(x)


def merged(m: Any, x: Any) -> Any:
    graphdef, state = nnx.split(m)
    return jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, x)


FINE: dict[str, Callable[[Any, Any], Any]] = {
    "the model is returned": jax.jit(lambda m, x: (m(x), m)),
    "inside something": jax.jit(lambda m, x: {"y": m(x), "models": [m]}),
    "its state is returned": jax.jit(lambda m, x: (m(x), nnx.state(m, nnx.Variable))),
    "it is split": jax.jit(lambda m, x: (m(x), nnx.split(m)[1])),
    "its leaves are returned": jax.jit(lambda m, x: (m(x), jax.tree.leaves(m))),
    "what was written is returned": jax.jit(lambda m, x: (m(x), m.count[...])),
    "aux": jax.grad(lambda m, x: (m(x).sum(), m), has_aux=True),
    "a step": with_optimizer,
    "nnx.jit": nnx.jit(call),
    "nnx.jit in jax.jit": jax.jit(lambda m, x: (nnx.jit(call)(m, x), m)),
    "a copy in nnx.jit": nnx.jit(on_a_copy),
    "a copy in jax.jit": jax.jit(on_a_copy),
    "a model made of a state": merged,
    "nothing is written": jax.jit(lambda m, x: m.linear(x)),
    "shapes alone": lambda m, x: jax.eval_shape(call, m, x),
    "a jaxpr": lambda m, x: jax.make_jaxpr(call)(m, x),
    "the carry of a loop": lambda m, x: jax.lax.scan(lambda m, x: (m, m(x)), m, x),
    "statistics that stay": lambda m, x: jax.jit(call)(
        nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(0)), x
    ),
    "streams": lambda m, x: jax.jit(lambda rngs, x: rngs.normal(x.shape))(nnx.Rngs(0), x),
}


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_said_where_nothing_is_lost(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FINE[name](Counting(), X)


def test_an_error_is_not_followed_by_a_warning() -> None:
    @jax.jit
    def fails(m: Any, x: Any) -> Any:
        m(x)
        raise KeyError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError):
            fails(Counting(), X)


def test_a_loan_is_told_of_what_a_planned_call_writes() -> None:
    @nnx.jit
    def count(m: Any) -> None:
        m.count[...] += 1

    @functools.partial(jax.jit, static_argnums=1)
    def step(m: Any, number: int) -> Any:
        for _ in range(number):
            count(m)
            m.count.set_metadata(tag="counted")
        return m

    assert float(step(Counting(), 3).count[...]) == 3
