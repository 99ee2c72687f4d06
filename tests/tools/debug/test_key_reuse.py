"""Streams that draw a key again are named with both places; healthy programs are left alone."""

from __future__ import annotations

import contextlib
import threading
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx

KeyReuseError = nnx.debug.KeyReuseError
X = jnp.ones(3)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.drop(self.linear(x))


def net(seed: int = 0) -> Net:
    return Net(nnx.Rngs(seed, dropout=seed + 1))


def call(model: Any, x: Any = X) -> Any:
    return model(x)


def total(model: Any, x: Any = X) -> Any:
    return model(x).sum()


# -- what is found


def a_clone() -> None:
    model = net()
    copy = nnx.clone(model)
    model(X)
    copy(X)


def a_clone_inside_of_jit() -> None:
    nnx.jit(lambda model: nnx.clone(model)(X) + model(X))(net())


def a_clone_in_another_call() -> None:
    model = net()
    copy = nnx.clone(model)
    nnx.jit(call)(model)
    copy(X)


def a_count_that_is_put_back() -> None:
    model = net()
    count = model.drop.rngs.count[...]
    model(X)
    model.drop.rngs.count[...] = count
    model(X)


def streams_of_one_seed() -> None:
    rngs = nnx.Rngs(params=0, dropout=0)
    rngs.params()
    rngs.dropout()


def streams_that_are_split() -> None:
    rngs = nnx.Rngs(0)
    copy = nnx.clone(rngs)
    rngs.split(3)
    copy.fork()


REUSES = [
    a_clone,
    a_clone_inside_of_jit,
    a_clone_in_another_call,
    a_count_that_is_put_back,
    streams_of_one_seed,
    streams_that_are_split,
]


@pytest.mark.parametrize("program", REUSES, ids=lambda f: f.__name__)
def test_reuse_is_found(program: Any) -> None:
    program()  # nobody looks
    message = (
        r"^stream '\w+'.* drew key 0 at \S+test_key_reuse\.py:\d+.*, and stream '\w+'.* draws the "
        r"same one at \S+test_key_reuse\.py:\d+.*: they have the same base key and count\. Make "
        r"copies that draw others, `rngs\.fork\(\)`"
    )
    with pytest.raises(KeyReuseError, match=message), nnx.debug.rng_reuse():
        program()
    with pytest.raises(KeyReuseError, match=message):
        nnx.debug.rng_reuse()(program)()
    program()


def test_both_streams_and_places_are_named() -> None:
    rngs = nnx.Rngs(a=0, b=0)

    @nnx.jit
    def draw(rngs: Any) -> Any:
        return rngs.a.normal(), rngs.b.normal()

    line = draw.__wrapped__.__code__.co_firstlineno + 2
    message = (
        rf"stream 'a' \(rngs\.a\) drew key 0 at \S+:{line}.*, and stream 'b' \(rngs\.b\) draws"
    )
    with pytest.raises(KeyReuseError, match=message), nnx.debug.rng_reuse():
        draw(rngs)


def test_counts_that_are_lost() -> None:
    """Plain `jax.jit` does not keep them: each call drops the same."""
    model, jitted = net(), jax.jit(call)
    message = (
        r"stream 'dropout'.* drew key 0 at \S+:\d+.*, and draws the same one there each time that "
        r"the program runs, or in each iteration of a loop: .*Compile with `nnx\.jit`.*"
        r"`nnx\.split_rngs\(splits=n\)`"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the write that is lost
        with pytest.raises(KeyReuseError, match=message), nnx.debug.rng_reuse():
            for _ in range(3):
                jitted(model, X)


def test_a_loop_of_jax_draws_the_same_again() -> None:
    def body(x: Any, _: Any) -> Any:
        return x + nnx.Rngs(0).normal(()), None

    with pytest.raises(KeyReuseError, match="in each iteration"), nnx.debug.rng_reuse():
        jax.lax.scan(body, jnp.zeros(()), length=3)


def test_draws_that_are_not_compiled_raise_at_once() -> None:
    model = net()
    copy, after = nnx.clone(model), []
    with pytest.raises(KeyReuseError), nnx.debug.rng_reuse():
        model(X)
        copy(X)
        after.append(1)
    assert not after


def test_keys_are_checked_by_jax() -> None:
    key = nnx.Rngs(0)()

    def twice() -> None:
        jax.random.normal(key)
        jax.random.normal(key)

    with pytest.raises(jax.errors.KeyReuseError), nnx.debug.rng_reuse():
        twice()
    with nnx.debug.rng_reuse(keys=False):
        twice()


# -- what is no fault


def steps() -> None:
    model, step = net(), nnx.jit(nnx.grad(total))
    for _ in range(4):
        step(model)
        model(X)


def recomputed() -> None:
    stack = nnx.Stack(Net, 3, rngs=nnx.Rngs(0), remat=True)
    step = nnx.jit(nnx.grad(total))
    again = nnx.jit(nnx.grad(lambda m: nnx.remat(nnx.remat(total))(m)))
    model = net(10)
    for _ in range(3):
        step(stack)
        again(model)


def recomputed_by_jax() -> None:
    def checkpointed(model: Any) -> Any:
        graphdef, state = nnx.split(model)
        return jax.checkpoint(lambda state: total(nnx.merge(graphdef, state)))(state)

    nnx.jit(nnx.grad(checkpointed))(net())


def mapped() -> None:
    streams = nnx.StateAxes({nnx.RngState: 0, ...: None})
    rows = nnx.vmap(call, in_axes=(streams, 0))
    nnx.split_rngs(splits=4)(rows)(net(), jnp.ones((4, 3)))
    nnx.vmap(lambda rngs: rngs.normal(()))(nnx.Rngs(10).broadcast(3))


def loops() -> None:
    rnn = nnx.RNN(nnx.LSTMCell(3, 3, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    for _ in range(3):
        nnx.jit(call)(rnn, jnp.ones((2, 5, 3)))
    nnx.fori_loop(0, 5, lambda i, m: (m(X), m)[1], net(10))


def forks() -> None:
    rngs = nnx.Rngs(5)
    for derived in (rngs.fork(), rngs.split(3), nnx.Rngs(6), rngs.fork()):
        if derived.default.key.ndim == 0:
            derived.normal(())
    backup = nnx.backup_keys(rngs)
    nnx.reseed(rngs, default=7)
    rngs.normal(())
    nnx.restore_rngs(backup)


HEALTHY = [steps, recomputed, recomputed_by_jax, mapped, loops, forks]


@pytest.mark.parametrize("program", HEALTHY, ids=lambda f: f.__name__)
def test_healthy_programs(program: Any) -> None:
    with nnx.debug.rng_reuse():
        program()


def test_programs_are_kept_apart() -> None:
    traces: list[None] = []

    @nnx.jit
    def draw(rngs: Any) -> Any:
        traces.append(None)
        return rngs.normal(())

    rngs = nnx.Rngs(0)
    for _ in range(2):
        for _ in range(2):
            draw(rngs)
        with nnx.debug.rng_reuse():
            draw(rngs)
    assert len(traces) == 2


def test_threads_are_apart() -> None:
    """Blocks of other threads, and threads without one, may draw what this one draws."""
    barrier = threading.Barrier(3, timeout=60)
    errors: list[BaseException | None] = [None] * 3

    def run(i: int) -> None:
        block = nnx.debug.rng_reuse() if i else contextlib.nullcontext()
        try:
            with block:
                model = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
                barrier.wait()
                model(jnp.ones(3))
                nnx.jit(lambda model, x: model(x))(model, jnp.ones(3))
                barrier.wait()
        except BaseException as error:
            errors[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [None] * 3


def test_nobody_is_told_outside() -> None:
    from weft._rng.streams import watchers

    with nnx.debug.rng_reuse(), nnx.debug.rng_reuse():
        assert len(watchers) == 1
    assert not watchers
