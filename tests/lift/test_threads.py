"""Threads: nobody meets an array that another thread donated."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.devices import make_mesh
from tests.lift.donated import Model, add, is_donated, peek, step, trained
from weft._lift.jit import dispatch
from weft._lift.jit.plan import iter_plans


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
    m, seen = trained(), []

    @nnx.jit
    def report(inner: Model) -> Any:
        inner.w[...] = inner.w + 1
        jax.debug.callback(lambda x: seen.append((np.array(x), m.w[...])), inner.w[...])
        return inner.w.sum()

    assert is_donated(lambda: step(m), m.w)  # as would be the array that the callback reads
    values: list[np.ndarray] = []
    for _ in range(3):
        old = peek(m.w)
        values.append(np.array(old))
        report(m)
        jax.effects_barrier()
        new, read = seen[-1]
        np.testing.assert_array_equal(new, values[-1] + 1)
        assert read is old
        step(m)
    assert len(seen) == 3
    for (_, read), value in zip(seen, values, strict=True):  # it keeps what it was handed
        np.testing.assert_array_equal(read, value)


class Switched(nnx.Module):
    def __init__(self, size: int = 1000) -> None:
        self.w = nnx.Param(jnp.zeros(size))
        self.dropout = nnx.Dropout(0.1, rngs=nnx.Rngs(0))


def _run_beside(uses: list[Callable[[], Any]], train: Callable[[], Any], rounds: int) -> None:
    """Trains while other threads use the same objects, as often switching as Python can."""
    stop, failures = threading.Event(), []

    def loop(use: Callable[[], Any]) -> None:
        try:
            while not stop.is_set():
                use()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(use,), daemon=True) for use in uses]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(rounds):
            train()
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads), "a reader waits for ever"


ROUNDS = int(os.environ.get("WEFT_ROUNDS", "60"))
predict = nnx.jit(lambda m: m.w.sum())
READERS: dict[str, Callable[[Switched], Any]] = {
    "call": lambda m: float(predict(m)),
    "value": lambda m: np.asarray(m.w[...]).sum(),
    "split": lambda m: np.asarray(nnx.split(m, nnx.Param, ...)[1]["w"][...]),
    "clone": lambda m: np.asarray(nnx.clone(m).w[...]),
    "fresh function": lambda m: float(nnx.jit(lambda m: m.w.sum())(m)),
}


@pytest.mark.parametrize("reader", READERS)
def test_readers_beside_changes_of_structure(reader: str) -> None:
    m = Switched()
    add = nnx.jit(lambda m: m.w.set_value(m.w + 1))

    def train() -> None:
        m.train()
        add(m)
        add(m)
        m.eval()
        np.asarray(m.w[:1])

    _run_beside([lambda: READERS[reader](m)] * 2, train, ROUNDS)
    np.testing.assert_array_equal(m.w, np.full(1000, 2.0 * ROUNDS))


def test_what_is_read_is_never_older_than_the_structure() -> None:
    """A reader that plans while the structure changes does not remember the old one."""
    m = Switched(4)
    m.dropout.rate = 0.0
    rate = nnx.jit(lambda m: m.w.sum() * 0 + m.dropout.rate, on_retrace=None)

    def train() -> None:
        m.dropout.rate = 1.0 - m.dropout.rate

    def read() -> None:
        before = m.dropout.rate
        value = float(rate(m))
        assert value in (before, m.dropout.rate, 1.0 - before)

    _run_beside([read] * 2, train, 20 * ROUNDS)
    assert float(rate(m)) == m.dropout.rate
    results: list[float] = []
    thread = threading.Thread(target=lambda: results.append(float(rate(m))))
    thread.start()
    thread.join()
    assert results == [m.dropout.rate]


def test_first_calls_of_one_function() -> None:
    interval, failures = sys.getswitchinterval(), []
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(5):
            function = nnx.jit(lambda m, x: m.w.set_value(m.w + x), on_retrace=None)
            models, barrier = [Model() for _ in range(6)], threading.Barrier(6)

            def work(m: Model, function: Any = function, barrier: Any = barrier) -> None:
                barrier.wait()
                try:
                    for _ in range(3):
                        function(m, 1.0)
                except Exception as error:
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(m,)) for m in models]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            for m in models:
                np.testing.assert_array_equal(m.w, np.arange(4.0) + 3)
    finally:
        sys.setswitchinterval(interval)


def test_many_threads_keep_their_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    m, number = Model(), 24
    real, made = dispatch.make_plan, []
    monkeypatch.setattr(dispatch, "make_plan", lambda *args: made.append(1) or real(*args))
    evaluate = nnx.jit(lambda m: m.w.sum())
    barrier = threading.Barrier(number)

    def work() -> None:
        for _ in range(4):
            barrier.wait()
            evaluate(m)

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == number
    evaluate(m)  # and the plans of threads that ended are forgotten when there are many
    assert len(list(iter_plans(m._root_plans))) == 1


def test_eight_threads_in_contexts_of_their_own_do_what_one_does() -> None:
    mesh = make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    step = nnx.jit(nnx.value_and_grad(lambda layer, x: jnp.sum(layer(x) ** 2)))

    def work(i: int) -> tuple[Any, ...]:
        axis = ("a", "b", None)[i % 3]
        metadata = {"out_sharding": ("rows", None)}
        with jax.set_mesh(mesh), nnx.logical_axis_rules([("rows", axis)]):
            layer = nnx.Linear(4, 2, rngs=nnx.Rngs(i), kernel_metadata=metadata)
            for _ in range(3):
                loss, grads = step(layer, jnp.full((2, 4), i + 1.0))
                layer = nnx.merge(*nnx.split(layer))
            spec = layer.kernel[...].sharding.spec
        return spec, float(loss), np.asarray(grads["kernel"][...]).tobytes()

    expected = {i: work(i) for i in range(8)}
    assert [expected[i][0] for i in range(2)] == [jax.P("a", None), jax.P("b", None)]
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: work(i)})) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert jax.sharding.get_abstract_mesh().empty
