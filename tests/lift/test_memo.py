"""What is kept between calls of loops and branches, and what must not be."""

import functools
import gc
import random
import weakref

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._lift import memo

MODEL = nnx.Dict(w=nnx.Param(jnp.ones(())))
CARRY = {"in_axes": (nnx.Carry, 0), "out_axes": nnx.Carry}


class Settings:
    scale = 2.0


# Each loop as a function of a body, from an array and a factor to an array, and of a carry.
LOOPS = {
    "scan": lambda body, x: nnx.scan(body, **CARRY)(x, jnp.ones(2)),
    "fori_loop": lambda body, x: nnx.fori_loop(0, 2, functools.partial(_swapped, body), x),
    "while_loop": lambda body, x: nnx.while_loop(_is_small, functools.partial(body, i=1.0), x),
    "cond": lambda body, x: nnx.cond(True, body, body, x, 1.0),
    "switch": lambda body, x: nnx.switch(1, [_keep, body], x, 1.0),
}


def _swapped(body, i, x):
    return body(x, 1.0)


def _is_small(x):
    return x < 4.0


def _keep(x, i):
    return x


# The same, such that the loop is given the very object that is passed, as it is.
SAME = {
    "scan": lambda body, x: nnx.scan(body, **CARRY)(x, jnp.ones(2)),
    "fori_loop": lambda body, x: nnx.fori_loop(0, 2, body, x),
    "while_loop": lambda body, x: nnx.while_loop(_is_small, body, x),
    "cond": lambda body, x: nnx.cond(True, body, _keep, x, 1.0),
    "switch": lambda body, x: nnx.switch(1, [_keep, body], x, 1.0),
}


def bodies(make):
    """Returns, by loop, a body of its signature that calls `make(x)`."""
    return {
        "scan": lambda x, i: make(x),
        "fori_loop": lambda i, x: make(x),
        "while_loop": make,
        "cond": lambda x, i: make(x),
        "switch": lambda x, i: make(x),
    }


@pytest.mark.parametrize("name", SAME)
def test_the_same_function_is_traced_once(name):
    traces = []

    def step(x):
        traces.append(1)
        return x * 2.0

    body, run = bodies(step)[name], SAME[name]
    first = run(body, jnp.float32(1.0))
    for call in (run, nnx.jit(run, static_argnums=0), jax.jit(run, static_argnums=0)):
        assert call(body, jnp.float32(1.0)) == first
    assert len(traces) == 1
    if name != "while_loop":
        assert nnx.grad(lambda x: run(body, x))(1.0) == first
        assert len(traces) <= 2  # for a Python number, which is weak
    run(body, jnp.ones(3)[0] * 0.5)
    assert len(traces) <= 2


@pytest.mark.parametrize("name", SAME)
def test_a_fresh_function_is_traced(name, monkeypatch):
    def run():
        return SAME[name](bodies(lambda x: x * Settings.scale + random.random())[name], 1.0)

    first = run()
    assert run() != first
    monkeypatch.setattr(Settings, "scale", 100.0)
    assert run() > 90.0
    assert nnx.jit(run)() > 90.0


def test_methods_are_objects_of_their_own(monkeypatch):
    class Net(nnx.Module):
        def __init__(self):
            self.w = nnx.Variable(jnp.ones(()))

        def step(self, x):
            return x * Settings.scale * self.w

        def __call__(self, x):
            return self.step(x)

    net = Net()
    runs = {
        "method": lambda: nnx.fori_loop(0, 1, lambda i, x: net.step(x), 1.0),
        "bound": lambda: nnx.while_loop(lambda x: x < 1.5, net.step, 1.0),
        "object": lambda: nnx.while_loop(lambda x: x < 1.5, net, 1.0),
        "chosen": lambda: nnx.cond(True, net.step, net.step, 1.0),
    }
    assert [run() for run in runs.values()] == [2.0] * 4
    monkeypatch.setattr(Settings, "scale", 3.0)
    assert [runs[name]() for name in ("method", "bound", "chosen")] == [3.0] * 3
    monkeypatch.setattr(Net, "__call__", lambda self, x: x * 7.0)
    assert runs["object"]() == 7.0
    monkeypatch.setattr(Net, "step", lambda self, x: x * 5.0)
    assert [runs[name]() for name in ("method", "bound", "chosen")] == [5.0] * 3


def uses_model(x):
    return x * MODEL["w"]


@pytest.mark.parametrize("name", SAME)
def test_objects_that_a_function_reaches_are_read_anew(name):
    body, run = bodies(uses_model)[name], SAME[name]
    old = MODEL["w"][...]
    MODEL["w"][...] = 3.0 * old
    first = run(body, 1.0)
    MODEL["w"][...] = 2.0 * old
    assert run(body, 1.0) != first
    MODEL["w"][...] = old


@pytest.mark.parametrize("name", SAME)
def test_numbers_that_a_function_reaches_are_read_anew(name):
    number = nnx.Variable(1.0)
    body, run = bodies(lambda x: x + 2.0 * number)[name], SAME[name]
    outer = bodies(lambda x: run(body, x))["scan"]
    first, nested = run(body, 1.0), nnx.scan(outer, **CARRY)(1.0, jnp.ones(1))
    number[...] = 5.0
    assert run(body, 1.0) > first
    assert nnx.scan(outer, **CARRY)(1.0, jnp.ones(1)) > nested


@pytest.mark.parametrize("name", [name for name in SAME if name != "while_loop"])
def test_tracers_that_a_function_reaches_are_read_anew(name):
    held = []
    body, run = bodies(lambda x: x * held[0])[name], SAME[name]

    def outer(y):
        held[:] = [y]
        return run(body, jnp.float32(1.0))

    power = 2 if name in ("scan", "fori_loop") else 1
    for y in (2.0, 3.0):
        assert jax.jit(lambda y: outer(y))(y) == y**power
        assert jax.grad(outer)(y) == power * y ** (power - 1)
        assert nnx.jit(lambda y: outer(y))(y) == y**power
        assert outer(jnp.float32(y)) == y**power


def test_options_are_told_apart():
    def step(c, x):
        return c + x, c

    def run(**options):
        return nnx.scan(step, **options)(jnp.zeros(()), jnp.arange(3.0))[1].tolist()

    for _ in range(2):
        assert run() == [0.0, 0.0, 1.0]
        assert run(reverse=True) == [3.0, 2.0, 0.0][::-1] or run(reverse=True) == [3.0, 2.0, 0.0]
    assert run(reverse=True) != run()
    assert nnx.fori_loop(0, 2, lambda i, x: x + 1, 0) == 2
    add = lambda i, x: x + 1  # noqa: E731
    assert [nnx.fori_loop(0, n, add, 0) for n in range(40)] == list(range(40))
    kept = memo._kept[(id(add), id(add))]
    assert len(kept.made) <= memo._MOST_OPTIONS


def test_a_function_in_two_transforms():
    def branch(x):
        return x + 1.0

    assert nnx.cond(True, branch, branch, 1.0) == 2.0
    assert nnx.switch(0, [branch, branch], 1.0) == 2.0
    assert nnx.while_loop(lambda x: x < 3.0, branch, 1.0) == 3.0


def test_functions_and_what_is_kept_for_them_go():
    array = jnp.ones(3)

    def run():
        held = array * 2.0

        class Model(nnx.Module):
            def __init__(self):
                self.w = nnx.Param(jnp.ones(3))

            def step(self, x):
                return x * self.w

        model = Model()

        def body(x, _):
            return x * held + model.w

        nnx.scan(body, **CARRY)(array, jnp.ones(2))
        nnx.cond(True, body, lambda x, _: x, array, 1.0)
        nnx.fori_loop(0, 2, lambda i, x: body(x, i), array)
        nnx.while_loop(lambda x: x.sum() < 100.0, lambda x: body(x, 0), array)
        nnx.cond(True, model.step, model.step, array)
        return [weakref.ref(x) for x in (held, body, model)]

    before = len(memo._kept)
    gone = run()
    gc.collect()
    assert [get() for get in gone] == [None] * 3
    assert len(memo._kept) <= before


def test_nothing_is_kept_by_cycles():
    """Arrays go with their functions, not when Python looks for cycles."""
    array = jnp.ones(3)

    class Marker:
        scale = 2.0

    def run():
        held, marker = array * 2.0, Marker()
        body = lambda x, _: x * held  # noqa: E731
        nnx.scan(body, **CARRY)(array, jnp.ones(2))
        nnx.fori_loop(0, 2, lambda i, x: x * marker.scale, array)
        nnx.while_loop(lambda x: x[0] < marker.scale, lambda x: x * marker.scale, array)
        nnx.cond(True, lambda x: x, lambda x: x * marker.scale, array)
        return weakref.ref(held), weakref.ref(marker)

    run()
    gc.collect()
    before = len(memo._kept)
    gc.disable()
    try:
        assert [get() for get in run()] == [None, None]
        assert len(memo._kept) == before
    finally:
        gc.enable()


def test_what_is_kept_is_limited(monkeypatch):
    monkeypatch.setattr(memo, "_MOST_FUNCTIONS", 3)
    monkeypatch.setattr(memo, "_kept", {})
    functions = [functools.partial(_swapped, _keep) for _ in range(5)]
    for function in functions:
        assert nnx.fori_loop(0, 1, function, 1.0) == 1.0
    assert [key[0] for key in memo._kept] == list(map(id, functions[2:]))
    memo.clear()
    assert not memo._kept


class Unreferable:
    """A callable without weak references."""

    __slots__ = ()

    def __call__(self, i, x):
        return x * Settings.scale


def test_functions_that_cannot_be_referred_to_are_not_kept(monkeypatch):
    body = Unreferable()
    assert nnx.fori_loop(0, 1, body, 1.0) == 2.0
    monkeypatch.setattr(Settings, "scale", 3.0)
    assert nnx.fori_loop(0, 1, body, 1.0) == 3.0


def test_settings_of_jax_lead_to_another_trace():
    def body(i, x):
        return x + i

    assert nnx.fori_loop(0, 2, body, jnp.zeros((), int)).dtype == jnp.int32
    with jax.enable_x64(True):
        assert nnx.fori_loop(0, 2, body, jnp.zeros((), int)).dtype == jnp.int64


def test_bound_methods_are_not_taken_for_functions():
    class Model(nnx.Module):
        def __init__(self):
            self.n = nnx.Variable(jnp.zeros(()))

        def step(self, x):
            self.n[...] = self.n + 1.0
            return x

    model = Model()
    nnx.scan(model.step, length=2, in_axes=nnx.Carry, out_axes=nnx.Carry)(1.0)
    axes = nnx.StateAxes({...: nnx.Carry})
    nnx.scan(Model.step, length=2, in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)(model, 1.0)
    nnx.scan(model.step, length=2, in_axes=nnx.Carry, out_axes=nnx.Carry)(1.0)
    assert model.n[...] == 6.0
