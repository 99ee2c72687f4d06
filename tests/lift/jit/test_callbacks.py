"""Callbacks to the host: they see objects as before the call; where they fail nothing is lost."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback

import weft as nnx
from tests.lift.donated import is_donated
from weft._lift.jit.callbacks import has_callbacks
from weft._lift.jit.plan import iter_plans

F32 = jax.ShapeDtypeStruct((), jnp.float32)


def _returning_zero(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        f(x)
        return np.float32(0)

    return call


CALLS: dict[str, Callable[[Callable[[Any], Any], Any], Any]] = {
    "debug": lambda f, x: jax.debug.callback(f, x),
    "debug, ordered": lambda f, x: jax.debug.callback(f, x, ordered=True),
    "pure": lambda f, x: jax.pure_callback(_returning_zero(f), F32, x),
    "io": lambda f, x: io_callback(_returning_zero(f), F32, x),
    "io, ordered": lambda f, x: io_callback(_returning_zero(f), F32, x, ordered=True),
}


def _in_scan(call: Callable[[Any], Any], x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (c, call(c)), x, None, length=1)[1]


def _in_custom_jvp(call: Callable[[Any], Any], x: Any) -> Any:
    @jax.custom_jvp
    def f(x: Any) -> Any:
        found = call(x)
        return x if found is None else found

    f.defjvp(lambda primals, tangents: (f(*primals), *tangents))
    return f(x)


PLACES: dict[str, Callable[[Callable[[Any], Any], Any], Any]] = {
    "itself": lambda call, x: call(x),
    "scan": _in_scan,
    "cond": lambda call, x: jax.lax.cond(x > -1e9, call, lambda x: call(x), x),
    "jit": lambda call, x: jax.jit(call)(x),
    "remat": lambda call, x: jax.checkpoint(call)(x),
    "custom_jvp": _in_custom_jvp,
}


class Model(nnx.Module):
    def __init__(self, size: int = 2) -> None:
        self.w = nnx.Param(jnp.ones((size, size)) / size)
        self.step = nnx.Variable(jnp.zeros((), jnp.int32))


def _make(report: Callable[[Any], Any], call: Any, place: Any) -> Callable[..., Any]:
    @nnx.jit
    def train(m: Model) -> Any:
        m.w[...] = m.w[...] @ m.w[...]
        m.step[...] += 1
        return place(functools.partial(call, report), m.w[0, 0])

    return train


def _bounded(run: Callable[[], Any]) -> None:
    """Runs something in a thread, and fails if it does not end."""
    failed: list[BaseException] = []

    def target() -> None:
        try:
            run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "a deadlock"
    if failed:
        raise failed[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_a_callback_sees_the_values_of_before_the_call(call: str, place: str) -> None:
    m, seen = Model(), []
    train = _make(lambda x: seen.append(int(m.step[...])), CALLS[call], PLACES[place])

    def run() -> None:
        for _ in range(3):
            jax.block_until_ready(train(m))

    _bounded(run)
    assert seen == [0, 1, 2] and int(m.step[...]) == 3
    assert not is_donated(lambda: train(m), m.step)


@pytest.mark.parametrize("call", CALLS)
def test_large_arrays_are_no_deadlock(call: str) -> None:
    m, seen = Model(600), []
    train = _make(lambda x: seen.append(int(m.step[...])), CALLS[call], PLACES["itself"])

    def run() -> None:
        for _ in range(3):
            train(m)
        jax.effects_barrier()

    _bounded(run)
    assert seen == [0, 1, 2] and int(m.step[...]) == 3


def test_printing_keeps_donation(capfd: pytest.CaptureFixture[str]) -> None:
    m = Model()

    @nnx.jit
    def train(m: Model) -> None:
        m.step[...] += 1
        jax.debug.print("{}", m.step[...])

    train(m), train(m)
    assert is_donated(lambda: train(m), m.step)
    jax.effects_barrier()
    assert capfd.readouterr().out.split() == ["1", "2", "3"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("size", [2, 600])
def test_a_callback_that_raises_changes_nothing(call: str, size: int) -> None:
    m, fail = Model(size), []
    o = nnx.Optimizer(m, optax.adam(1e-2), wrt=nnx.Param)

    def report(x: Any) -> None:
        if fail:
            raise RuntimeError("the disk is full")

    @nnx.jit
    def train(m: Model, o: Any) -> Any:
        grads = nnx.grad(lambda m: (m.w[...] ** 2).sum())(m)
        o.update(m, grads)
        return CALLS[call](report, m.w[0, 0])

    jax.block_until_ready(train(m, o))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state((m, o))))
    fail.append(True)
    with pytest.raises(Exception, match="the disk is full"):
        jax.block_until_ready(train(m, o))
    after = nnx.to_pure_dict(nnx.state((m, o)))
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize("call", CALLS)
def test_a_callback_of_what_is_compiled_ahead_of_time(call: str) -> None:
    m, seen = Model(), []
    train = _make(lambda x: seen.append(int(m.step[...])), CALLS[call], PLACES["itself"])
    compiled = train.lower(m).compile()

    def run() -> None:
        for _ in range(3):
            assert not is_donated(lambda: jax.block_until_ready(compiled(m)), m.step)

    _bounded(run)
    assert seen == [0, 1, 2] and int(m.step[...]) == 3


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("size", [2, 600])
def test_a_callback_may_update_the_model_that_is_read(size: int, ahead: bool) -> None:
    m = Model(size)

    @nnx.jit
    def count(m: Model) -> None:
        m.step[...] += 1
        m.w[...] *= 0.5

    def host(x: Any) -> Any:
        count(m)
        return np.asarray(x)

    @nnx.jit
    def evaluate(m: Model, x: Any) -> Any:
        y = jnp.sin(m.w[...] @ m.w[...])
        return (y * m.w[...]).sum() + jax.pure_callback(host, F32, x)

    w = 0.125 * np.asarray(m.w)
    expected = (np.sin(w @ w) * w).sum() + 1

    def run() -> None:  # a thread that had none of it could donate nothing
        run_it = evaluate.lower(m, jnp.float32(1)).compile() if ahead else evaluate
        count(m), count(m)
        assert is_donated(lambda: count(m), m.step)
        for i in range(3):
            value = float(run_it(m, jnp.float32(1)))
            if i == 0:
                np.testing.assert_allclose(value, expected, rtol=1e-4)

    _bounded(run)
    assert int(m.step[...]) == 6


def test_a_later_trace_with_a_callback() -> None:
    """One shape has a callback, another one not; the plan of a second model knows the latter."""
    seen: list[int] = []
    models = [Model(), Model()]

    def report(x: Any) -> None:
        seen.append(int(models[0].step[...]))

    @nnx.jit
    def train(m: Model, x: Any) -> Any:
        m.step[...] += 1
        if len(x) == 2:
            jax.debug.callback(report, m.w[0, 0])
        return x.sum() * m.w.sum()

    for m in models:
        train(m, jnp.ones(1)), train(m, jnp.ones(1))
        assert is_donated(functools.partial(train, m, jnp.ones(1)), m.step)
    for m in models[::-1]:
        assert not is_donated(functools.partial(train, m, jnp.ones(2)), m.step)
    jax.effects_barrier()
    assert seen == [3, 3] and [int(m.step[...]) for m in models] == [4, 4]


def test_the_same_of_a_function_that_only_reads() -> None:
    models, seen = [Model(), Model()], []
    count = nnx.jit(lambda m: m.step.set_value(m.step + 1))

    def report(x: Any) -> None:
        for m in models:
            count(m)
        seen.append(int(x))

    @nnx.jit
    def look(m: Model, x: Any) -> Any:
        if len(x) == 2:
            jax.debug.callback(report, m.step[...])
        return m.step * 1

    def run() -> None:  # a thread that had none of it could donate nothing
        for m in models:
            for _ in range(3):
                count(m)
            look(m, jnp.ones(1)), look(m, jnp.ones(1))
        for m in models:
            look(m, jnp.ones(2)), look(m, jnp.ones(2))
        jax.effects_barrier()

    _bounded(run)
    assert seen == [3, 4, 5, 6] and [int(m.step[...]) for m in models] == [7, 7]


def test_a_plan_of_another_model_learns_of_the_callback() -> None:
    models = [Model(), Model()]
    count = nnx.jit(lambda m: (m.step.set_value(m.step + 1), m.w.set_value(m.w * 0.5)))

    def host(x: Any) -> Any:
        for m in models:
            count(m)
        return np.asarray(x)

    @nnx.jit
    def look(m: Model, x: Any) -> Any:
        if len(x) == 1:
            return m.w[0, 0]
        y = jnp.sin(m.w[...] @ m.w[...])
        return (y * m.w[...]).sum() * 0 + jax.pure_callback(host, F32, x[0]) + m.w[0, 0]

    values: list[float] = []

    def run() -> None:
        for m in models:
            for _ in range(3):
                count(m)
            look(m, jnp.ones(1)), look(m, jnp.ones(1))
        for m in models:
            values.append(float(look(m, jnp.ones(2))))

    _bounded(run)
    # None of them reads the arrays without saying so, whatever it knew before.
    for m in models:
        for plan in iter_plans(m._root_plans):
            assert plan.reading is None or plan.program().unasked is None
    np.testing.assert_allclose(values, [1 + 0.5**4, 1 + 0.5**5])
    assert [int(m.step[...]) for m in models] == [5, 5]


def test_a_result_that_refuses_to_be_made() -> None:
    class Refusing:
        def __init__(self, x: Any) -> None:
            self.x = x

    refuses: list[bool] = []

    def unflatten(_: Any, children: Any) -> Refusing:
        if refuses:
            raise RuntimeError("refused")
        return Refusing(*children)

    jax.tree_util.register_pytree_node(Refusing, lambda r: ((r.x,), None), unflatten)
    m = Model()

    @nnx.jit
    def train(m: Model) -> Any:
        m.w[...] *= 2
        m.step[...] += 1
        return Refusing(m.w.sum())

    for _ in range(3):
        train(m)
    refuses.append(True)
    with pytest.raises(RuntimeError, match="refused"):
        train(m)
    refuses.clear()
    count = int(m.step[...])
    np.testing.assert_array_equal(m.w, np.full((2, 2), 0.5 * 2.0**count))
    assert float(train(m).x) == 2 * 2.0 ** (count + 1)


def test_what_is_a_callback() -> None:
    noop = lambda x: None  # noqa: E731
    for call in CALLS.values():
        for place in PLACES.values():
            traced = jax.make_jaxpr(lambda x: place(functools.partial(call, noop), x))(1.0)  # noqa: B023
            assert has_callbacks(traced)
    assert not has_callbacks(jax.make_jaxpr(lambda x: jax.lax.map(jnp.sin, x))(jnp.ones(2)))
    assert not has_callbacks(jax.make_jaxpr(lambda x: jax.debug.print("{}", x))(1.0))
