"""Leaks: what is dropped is gone at once, without the garbage collector.

The number of steps is WEFT_STEPS, that of models a tenth of it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import weft as nnx
from tests.lift.donated import Model, add, step, trained

STEPS = int(os.environ.get("WEFT_STEPS", "1000"))


def live() -> tuple[int, int]:
    arrays = jax.live_arrays()
    return len(arrays), sum(array.nbytes for array in arrays)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_optimizers_that_are_dropped_leave_nothing() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    tx = optax.adam(1e-3)

    @nnx.jit
    def train(model: Any, optimizer: Any, x: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        optimizer.update(model, grads)
        return loss

    x = jnp.ones((2, 4))
    train(model, nnx.Optimizer(model, tx, wrt=nnx.Param), x)
    with without_collector():
        before = live()
        for _ in range(100):
            optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
            train(model, optimizer, x)
            train(model, optimizer, x)
        del optimizer
        assert live() <= before
    assert train.cache_info().traces == 1
    assert len(model.kernel._watches) < 40


def test_short_lived_models_leave_nothing() -> None:
    shared = nnx.Variable(jnp.zeros(()))

    @nnx.jit
    def use(m: Model, counter: nnx.Variable, x: Any) -> Any:
        counter[...] = counter + 1
        m.w[...] = m.w + x
        return m.w[...]

    m = Model()
    use(m, shared, jnp.ones(4))
    del m
    with without_collector():
        before = live()
        for _ in range(STEPS // 10):
            m = Model()
            use(m, shared, jnp.ones(4))
            gone = weakref.ref(m)
            del m
            assert gone() is None
        assert live() <= before
    assert use.cache_info().traces == 1
    assert len(shared._watches) < 40


def test_many_steps_leave_nothing() -> None:
    m, x = trained(), jnp.ones(4)
    losses = [step(m) for _ in range(3)]
    del losses
    with without_collector():
        for _ in range(3):
            add(m, x)
        before = live()
        for i in range(STEPS):
            add(m, x)
            if i % 10 == 0:
                float(m.w[0])
            if i % 100 == 0:
                m.frozen.set_metadata(tag=i % 3)
        assert live() <= before


def test_functions_that_are_dropped_leave_nothing() -> None:
    m, x = trained(), jnp.ones(4)

    def use_once(big: Any) -> weakref.ref:
        @nnx.jit
        def shift(m: Model, x: Any) -> Any:
            m.w[...] = m.w + x
            return (big * 1).sum()

        shift(m, x)
        return weakref.ref(shift)

    gone = [use_once(jnp.ones((16, 16)) * i) for i in range(5)]
    gc.collect()
    nnx.jit(lambda m: m.w.sum())(m)  # a miss, at which plans of dead functions are forgotten
    assert [ref() for ref in gone] == [None] * 5
    assert len(m._root_plans) <= 4


def test_the_first_batch_is_not_kept() -> None:
    m = trained()
    x = jnp.ones(4)
    add(m, x)
    gone = weakref.ref(x)
    del x
    assert gone() is None
    double = nnx.jit(lambda x: x * 2)
    y = jnp.ones(3)
    double(y)
    gone = weakref.ref(y)
    del y
    assert gone() is None
