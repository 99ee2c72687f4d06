"""Threads: nobody meets an array that another thread donated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx
from tests.lift.donated import Model, add, is_donated, peek, step, trained


def test_readers_never_meet_a_deleted_array() -> None:
    m = trained()
    evaluate = nnx.jit(lambda m, x: (m.w * x).sum())
    evaluate(m, jnp.ones(4))
    stop, failures = threading.Event(), []

    def looping(use: Callable[[], Any]) -> threading.Thread:
        def loop() -> None:
            try:
                while not stop.is_set():
                    np.asarray(use())
            except BaseException as error:
                failures.append(error)

        return threading.Thread(target=loop)

    threads = [
        looping(lambda: m.w[...]),
        looping(lambda: evaluate(m, jnp.ones(4))),
        looping(lambda: jax.tree.leaves(m)[0]),
        looping(lambda: nnx.clone(m).w[...]),
    ]
    for thread in threads[:1]:
        thread.start()
    for i in range(200):
        step(m)
        if i == 50:
            for thread in threads[1:]:
                thread.start()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_evaluating_thread_that_came_first() -> None:
    m = Model()
    evaluate = nnx.jit(lambda m: m.w.sum())
    stop, failures, started = threading.Event(), [], threading.Event()

    def loop() -> None:
        try:
            while not stop.is_set():
                float(evaluate(m))
                started.set()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    started.wait()
    donated = [is_donated(lambda: step(m), m.w) for _ in range(100)]
    stop.set()
    thread.join()
    assert failures == []
    assert not any(donated)  # two threads use the Variables: nothing is overwritten


def test_a_model_that_another_thread_trained() -> None:
    m = Model()
    thread = threading.Thread(target=lambda: [add(m, jnp.ones(4)) for _ in range(3)])
    thread.start()
    thread.join()
    held = peek(m.w)
    assert not any(is_donated(lambda: add(m, jnp.ones(4)), m.w) for _ in range(3))
    np.testing.assert_array_equal(held, np.arange(4.0) + 3)
    np.testing.assert_array_equal(m.w, np.arange(4.0) + 6)


def test_threads_train_models_of_their_own() -> None:
    results: dict[int, np.ndarray] = {}

    def train(i: int) -> None:
        m = Model()
        m.w.set_value(jnp.full(4, float(i)))
        for _ in range(20):
            add(m, jnp.ones(4))
        assert is_donated(lambda: add(m, jnp.ones(4)), m.w)
        results[i] = np.array(m.w)

    threads = [threading.Thread(target=train, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: result[0] for i, result in results.items()} == {i: i + 21.0 for i in range(4)}


def test_a_callback_may_read_what_is_donated() -> None:
    m = trained()
    seen = []

    @nnx.jit
    def report(m: Model, reader: Any) -> Any:
        m.w[...] = m.w + 1
        jax.debug.callback(lambda x: seen.append(x), m.w[...])
        return m.w.sum()

    for _ in range(3):
        report(m, jnp.ones(()))
    jax.effects_barrier()
    assert len(seen) == 3
