"""What goes into a call and what comes out: static values in it, changed in place between calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft import StructureError
from weft._lift.jit.plan import iter_plans


@dataclasses.dataclass
class Config:
    rate: float
    sizes: list[int] = dataclasses.field(default_factory=list)


class Model(nnx.Module):
    def __init__(self, given: Any = None):
        self.w = nnx.Param(jnp.ones(2))
        self.given = given
        self.made: Any = None


# -- values that a call makes
def make(model: Model, x: Any) -> Any:
    model.made = Config(0.5)
    return x


def make_marked(model: Model, x: Any) -> Any:
    model.made = nnx.static([Config(0.5)])
    return x


def make_metadata(model: Model, x: Any) -> Any:
    model.w.set_metadata(made=Config(0.5))
    return x


def make_inside(model: Model, x: Any) -> Any:
    model.made = nnx.List([Model(Config(0.5))])
    return x


def move(model: Model, x: Any) -> Any:
    model.made = model.given
    return x


WAYS: dict[str, tuple[Callable[..., Any], Callable[[Model], Config]]] = {
    "attribute": (make, lambda model: model.made),
    "marked": (make_marked, lambda model: model.made[0]),
    "metadata": (make_metadata, lambda model: model.w.made),
    "object": (make_inside, lambda model: model.made[0].given),
    "moved": (move, lambda model: model.made),
}

Run = Callable[[Callable[..., Any]], Callable[..., Any]]


def _ahead(function: Callable[..., Any]) -> Callable[..., Any]:
    jitted = nnx.jit(function)
    return lambda model, x: jitted.lower(model, x).compile()(model, x)


def _over_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    run = nnx.pmap(function, in_axes=(None, 0))
    return lambda model, x: run(model, x[None])


TRANSFORMS: dict[str, Run] = {
    "jit": nnx.jit,
    "jit without donation": lambda f: nnx.jit(f, donate=None),
    "jit anew": lambda f: lambda model, x: nnx.jit(f)(model, x),
    "ahead of time": _ahead,
    "remat": nnx.remat,
    "vmap": lambda f: nnx.vmap(f, in_axes=(None, None), out_axes=None, axis_size=1),
    "pmap": _over_devices,
    "cond": lambda f: lambda model, x: nnx.cond(True, f, f, model, x),
    "switch": lambda f: lambda model, x: nnx.switch(0, [f, f], model, x),
    "cond in jit": lambda f: nnx.jit(lambda model, x: nnx.cond(x > 0, f, f, model, x)),
    "jit in jit": lambda f: nnx.jit(nnx.jit(f)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_what_a_call_makes_is_changed_before_the_next(transform: str, way: str) -> None:
    function, made = WAYS[way]
    run = TRANSFORMS[transform](function)
    for rate in (1.0, 2.0):
        model = Model(Config(0.5))
        run(model, jnp.ones(()))
        assert made(model) == Config(0.5)
        made(model).rate = rate  # it belongs to the caller's object now
        made(model).sizes.append(1)


@pytest.mark.parametrize("donate", ["written", None])
def test_the_same_object_again(donate: Any) -> None:
    traces: list[None] = []

    def function(model: Model, x: Any) -> Any:
        traces.append(None)
        return make(model, x)

    run = nnx.jit(function, donate=donate)
    model = Model()
    for _ in range(5):
        model.made = None
        run(model, 1.0)
    assert len(traces) == 1
    for _ in range(3):
        model.made.rate += 1.0
        model.made = None
        run(model, 1.0)
        assert model.made == Config(0.5)


def test_what_a_loop_makes_is_changed_before_the_next() -> None:
    def body(i: Any, model: Model) -> Model:
        model.made = Config(0.5)
        return model

    for rate in (1.0, 2.0, 3.0):
        model = Model()
        model.made = Config(0.5)
        nnx.fori_loop(0, 2, body, model)
        assert model.made == Config(0.5)
        model.made.rate = rate


def test_a_new_object_comes_out_of_each_call() -> None:
    run = nnx.jit(lambda x: Model(Config(0.5)))
    for _ in range(3):
        model = run(1.0)
        assert model.given == Config(0.5)
        model.given.rate = 2.0


def test_another_thread_makes_it_anew_meanwhile() -> None:
    """What is compiled is replaced while calls of it run; none of them is disturbed."""

    @nnx.jit(on_retrace=None)
    def function(model: Model, x: Any) -> Any:
        model.w[...] = model.w + x
        return make(model, x)

    def change() -> None:
        for rate in range(10):
            model = Model()
            function(model, 1.0)
            assert model.made == Config(0.5)
            model.made.rate = rate

    with ThreadPoolExecutor() as pool:
        changes = pool.submit(change)
        model, number = Model(), 0
        while not changes.done():
            function(model, 1.0)
            number += 1
        changes.result()
    np.testing.assert_array_equal(model.w[...], [1.0 + number] * 2)


# -- values that come in
def scaled(model: Model, x: Any) -> Any:
    return x * model.given.rate


@pytest.mark.parametrize("donate", ["written", None])
def test_a_retrace_sees_the_value_of_its_own_call(donate: Any) -> None:
    """An equal value, of an earlier call, may have changed since."""
    run = nnx.jit(scaled, donate=donate)
    first, second = Model(Config(0.5)), Model(Config(0.5))
    for model in (first, second):
        np.testing.assert_array_equal(run(model, jnp.ones(1)), [0.5])
    first.given.rate = 1.5
    np.testing.assert_array_equal(run(second, jnp.ones(2)), [0.5, 0.5])
    np.testing.assert_array_equal(jax.vmap(lambda x: run(second, x))(jnp.ones(3)), [0.5] * 3)
    with jax.disable_jit():
        np.testing.assert_array_equal(run(second, jnp.ones(1)), [0.5])
    np.testing.assert_array_equal(
        run.lower(second, jnp.ones(4)).compile()(second, jnp.ones(4)), 0.5
    )
    np.testing.assert_array_equal(run(first, jnp.ones(1)), [1.5])


@pytest.mark.parametrize("transform", sorted(TRANSFORMS))
def test_a_value_that_moves_is_that_of_the_call(transform: str) -> None:
    run = TRANSFORMS[transform](move)
    for _ in range(2):
        model = Model(Config(0.5))
        run(model, jnp.ones(()))
        assert model.made is model.given


@pytest.mark.parametrize("transform", sorted(TRANSFORMS))
def test_of_equal_values_the_one_that_was_moved_comes_out(transform: str) -> None:
    def move_second(model: Model, x: Any) -> Any:
        model.made = model.other
        return x

    run = TRANSFORMS[transform](move_second)
    for _ in range(2):
        model = Model(Config(0.5))
        model.other = Config(0.5)
        run(model, jnp.ones(()))
        assert model.made is model.other


PLACES = {
    "attribute": r"model\.made, where it is Config\(rate=2\.0",
    "marked": r"model\.made, where it is \[Config\(rate=2\.0",
    "metadata": r"model\.w, where it is \{'made': Config\(rate=2\.0",
    "object": r"model\.made\[0\]\.given, where it is Config\(rate=2\.0",
}


@pytest.mark.parametrize("way", PLACES)
def test_what_is_compiled_ahead_of_time_cannot_make_it_anew(way: str) -> None:
    function, made = WAYS[way]
    model = Model()
    compiled = nnx.jit(function).lower(model, 1.0).compile()
    compiled(model, 1.0)
    made(model).rate = 2.0
    found = f"{function.__name__!r} puts a static value into {PLACES[way]}.*Compile it again"
    with pytest.raises(StructureError, match=f"(?s){found}"):
        compiled(Model(), 1.0)


def test_what_was_changed_and_changed_back_has_no_place() -> None:
    model = Model()
    compiled = nnx.jit(make).lower(model, 1.0).compile()
    compiled(model, 1.0)
    model.made.sizes = []
    with pytest.raises(StructureError, match="puts a static value into objects: it was changed"):
        compiled(Model(), 1.0)


def test_what_was_changed_back_may_be_made_again() -> None:
    model = Model()
    compiled = nnx.jit(make).lower(model, 1.0).compile()
    compiled(model, 1.0)
    made, old = model.made, model.made.rate
    made.rate = 2.0
    with pytest.raises(StructureError, match="puts a static value into"):
        compiled(Model(), 1.0)
    made.rate = old
    other = Model()
    compiled(other, 1.0)
    assert other.made == Config(0.5)


def test_calls_that_make_objects_leave_nothing_behind() -> None:
    model, run = Model(), nnx.jit(lambda model, x: Model(Config(0.5)))
    for _ in range(50):
        assert run(model, 1.0).given == Config(0.5)
    (plan,) = iter_plans(model._root_plans)
    assert len(plan.snapshots) < 5
