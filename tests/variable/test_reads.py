"""Arrays that a function keeps between its calls, as long as nobody writes a Variable."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.variable.summed import Model, called, total
from weft._variable import reads


def test_arrays_are_kept_until_something_is_written() -> None:
    m = Model()
    reads.forget()
    called(m)
    assert len(reads.readers) == 1
    called(m)
    assert len(reads.readers) == 1
    m.a[...] = jnp.zeros(2)
    assert not reads.readers
    np.testing.assert_array_equal(called(m), np.full(2, 2.0))


def test_each_model_has_its_own() -> None:
    models = [Model(float(i)) for i in range(3)]
    for m in models:
        called(m)
    for i, m in enumerate(models):
        np.testing.assert_array_equal(total(m), np.full(2, i + 2.0))
        m.b[...] = jnp.zeros(2)
        for j, other in enumerate(models):
            np.testing.assert_array_equal(total(other), np.full(2, j + (0.0 if j <= i else 2.0)))


def test_an_array_that_is_changed_in_place() -> None:
    m = Model()
    m.a.set_raw_value(np.ones(2, np.float32))
    called(m)
    m.a.get_raw_value()[:] = 5
    np.testing.assert_array_equal(total(m), np.full(2, 7.0))


def test_what_was_replaced_is_not_kept() -> None:
    m = Model()
    called(m)
    old = weakref.ref(m.a.get_raw_value())
    m.a[...] = jnp.zeros(2)
    gc.collect()
    assert old() is None


def test_models_that_are_gone_leave_nothing() -> None:
    reads.forget()
    for _ in range(200):
        m = Model()
        called(m)
        old = weakref.ref(m.a.get_raw_value())
        del m
        assert old() is None
    assert len(reads.readers) <= 64


def test_a_trace_keeps_no_tracer() -> None:
    @jax.jit
    def make_and_call(x: Any) -> Any:
        m = Model()
        m.a[...] = x
        return called(m)

    with jax.checking_leaks():
        np.testing.assert_array_equal(make_and_call(jnp.ones(2)), np.full(2, 3.0))


def test_writes_in_another_thread() -> None:
    m, stop = Model(0.0), threading.Event()

    def write() -> None:
        for i in range(1, 200):
            m.a[...] = jnp.full(2, float(i))
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    last = 0.0
    while not stop.is_set():
        found = float(total(m)[0])
        assert found >= last
        last = found
    thread.join()
    np.testing.assert_array_equal(total(m), np.full(2, 201.0))
