"""What stands around a call: what it counts, and that it changes nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._lift.iterations import Iteration
from weft._module.observe import observing
from weft.tools.debug.checks import PLACE, Checker, Number, Place, Point, path_now


class Scaled(nnx.Module):
    def __init__(self):
        self.scale, self.count = nnx.Param(jnp.ones(2)), nnx.BatchStat(jnp.zeros(()))
        self.more = [nnx.Param(jnp.ones(3)), "text"]

    def __call__(self, x: Any, options: Any = None) -> Any:
        self.count[...] = self.count + 1.0
        return {"y": x * self.scale, "n": 3}


@contextlib.contextmanager
def told_by(model: nnx.Module, backward: bool = True) -> Any:
    told: list[Any] = []

    def tell(site: Any, numbers: Any, counts: Any) -> None:
        told.append((site, [(int(a), int(b)) for a, b in counts]))

    setattr(model, PLACE, Place(("model",)))
    with observing([model], Checker(tell, backward, lambda: None)):
        yield told
    delattr(model, PLACE)


def points(told: list[Any]) -> list[tuple[bool, bool]]:
    jax.effects_barrier()
    return [tuple(site.point) for site, _ in told]


def test_arguments_variables_and_outputs_are_counted():
    model = Scaled()
    with told_by(model) as told:
        out = model(jnp.array([jnp.nan, jnp.inf]), options={"a": [jnp.zeros(1)], "b": 1})
        jax.effects_barrier()
    (before, counted), (after, of_outputs) = told
    assert before.names == (
        "x f32[2]",
        "options.a[0] f32[1]",
        "count f32[]",
        "more[0] f32[3]",
        "scale f32[2]",
    )
    assert (before.variables, before.params) == (3, 2) and counted == [(1, 1)] + [(0, 0)] * 4
    assert after.names == ("output.y f32[2]",) and of_outputs == [(1, 1)]
    assert before.what == "Scaled.__call__" and before.call == after.call < before.order
    assert out["n"] == 3


def test_only_what_is_differentiated_is_counted_on_the_way_back():
    model = Scaled()
    loss = lambda model, x: model(x)["y"].sum()  # noqa: E731
    with told_by(model) as told:
        nnx.jit(nnx.grad(loss))(model, jnp.ones(2))
        assert sorted(points(told)) == [(False, False), (False, True), (True, False), (True, True)]
    of_back = [site for site, _ in told if site.point == Point(True, True)]
    assert of_back[0].names == ("scale f32[2]",)
    with told_by(model) as told:
        nnx.grad(loss, argnums=1)(model, jnp.ones(2))
        jax.effects_barrier()
    assert [s.names for s, _ in told if s.point == Point(True, True)] == [("x f32[2]",)]
    with told_by(model, backward=False) as told:
        nnx.grad(loss)(model, jnp.ones(2))
        assert points(told) == [(False, False), (False, True)]


def test_variables_are_as_before_and_what_is_written_stays():
    model = Scaled()
    arrays = model.scale.get_raw_value(), model.count.get_raw_value()
    written = []

    @nnx.jit
    def step(model: Any, x: Any) -> Any:
        before = model.scale.get_raw_value()
        model(x)
        written.append(model.scale.get_raw_value() is not before)

    with told_by(model):
        step(model, jnp.ones(2))
    assert written == [False] and model.count == 1.0
    assert model.scale.get_raw_value() is arrays[0]


def test_after_an_error_variables_are_as_before():
    class Failing(Scaled):
        def __call__(self, x: Any) -> Any:
            raise KeyError

    model = Failing()

    def call(scale: Any) -> Any:
        model.scale.set_value(scale)
        with pytest.raises(KeyError):
            model(scale)
        assert model.scale.get_raw_value() is scale
        return scale

    def grad(scale: Any) -> Any:
        nonlocal model
        model = Failing()
        with told_by(model):
            return call(scale).sum()

    jax.grad(grad)(jnp.ones(2))


def test_equal_places_are_one():
    assert Place(("a", 1)) == Place(("a", 1)) and hash(Place(("a",))) == hash(Place(("a",)))
    assert Place(("a",), (1,)) != Place(("a",))


def test_numbers_come_where_slices_begin():
    model, block, layer = nnx.Identity(), nnx.Identity(), nnx.Identity()
    places = {
        "model": Place(("model",)),
        "block": Place(("model", "blocks", "stacked"), (2,)),
        "layer": Place(("model", "blocks", "stacked", "query"), (2,)),
    }
    for obj, place in zip((model, block, layer), places.values(), strict=True):
        setattr(obj, PLACE, place)
    loop = Iteration(0, jnp.zeros(()), False, [block, layer])
    assert path_now(layer, []) == ("model", "blocks", "stacked", "query")
    assert path_now(layer, [loop]) == ("model", "blocks", Number(0), "query")
    assert path_now(block, [loop]) == ("model", "blocks", Number(0))
    assert path_now(model, [loop]) == ("model",)
    steps = Iteration(0, jnp.zeros(()), False, [])
    assert path_now(layer, [steps, loop]) == ("model", "blocks", Number(1), "query")
