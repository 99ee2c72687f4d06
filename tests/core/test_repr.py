"""What a person reads of objects, Variables and States."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any, NamedTuple

import jax.numpy as jnp
import pytest

import weft as nnx
from weft._graph import walk


class Box(nnx.Module):
    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)


@dataclasses.dataclass
class Holder:
    held: Any


class Pair(NamedTuple):
    a: Any
    b: Any


def test_variables() -> None:
    hook = lambda variable, value: value  # noqa: E731
    assert repr(nnx.Param(1.0, tag="a", n=[1])) == "Param(1.0, tag='a', n=[1])"
    assert repr(nnx.Param(None, on_get_value=hook)) == "Param(None, on_get_value=<lambda>)"
    assert repr(nnx.Variable({"a": jnp.zeros(())})) == "Variable({'a': f32[] 0.})"


def test_objects() -> None:
    model = Box(
        f=jnp.sin,
        act=nnx.relu,
        partial=functools.partial(jnp.sum, axis=0),
        one=(1,),
        kind=nnx.Param,
        none=None,
    )
    assert repr(model) == (
        "Box(f=sin, act=relu, partial=partial(sum, ...), one=(1,), kind=Param, none=None)"
    )
    assert repr(Box()) == "Box()"
    assert repr(Box(x=[], y={}, z=())) == "Box(x=[], y={}, z=())"


def test_a_large_model_stays_readable() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential([nnx.Linear(8, 8, rngs=rngs) for _ in range(40)])
    lines = repr(model).splitlines()
    assert len(lines) < 20
    assert lines[0] == "Sequential(  # Param: 2,880 (11.5 KB)"
    (run,) = [line for line in lines if "40 x" in line]
    assert run.strip() == "(0-39) 40 x Linear(  # Param: 72 (288 B)"
    model.layers[20] = nnx.Linear(8, 9, rngs=rngs)
    text = repr(model)
    assert "(0-19) 20 x Linear(" in text
    assert "(21-39) 19 x Linear(" in text
    assert max(map(len, text.splitlines())) < 120


def test_containers() -> None:
    model = nnx.Dict(b=1, a=nnx.List([1, "x"]))
    assert repr(model) == "Dict(b=1, a=List([1, 'x']))"
    assert repr(nnx.Dict({1: 2, "a": 3})) == "Dict(1: 2, a=3)"
    long = Box(items=(jnp.zeros(9), "x" * 200))
    assert repr(long) == (
        f"Box(  # arrays: 9 (36 B)\n  items=(\n    f32[9],\n    '{'x' * 84}...,\n  ),\n)"
    )
    assert repr(Box(items=("x" * 80,))) == f"Box(\n  items=('{'x' * 80}',),\n)"
    nested = Box(items=(Box(a="x" * 80, b=1),))
    assert repr(nested).endswith("      b=1,\n    ),\n  ),\n)")


def test_cycles_and_repeats() -> None:
    model = Box(items=[])
    model.me = model
    model.items.append(model.items)
    assert repr(model) == "Box(items=[<the list above>], me=<the Box above>)"
    shared = Box()
    assert repr(Box(a=shared, b=shared)) == "Box(a=Box(), b=Box())"


def test_cycles_through_classes_with_a_repr_of_their_own() -> None:
    for holder, shown in ((Pair, "a"), (lambda x, y: Holder(x), "held")):
        model = Box(x=1)
        model.me = holder(model, [1])
        text = repr(model)
        assert text.startswith("Box(x=1, me=") and f"{shown}=<the Box above>" in text
        assert f"{shown}=Box(x=1, me=" in repr(model.me)


def test_named_tuples_are_laid_out_like_objects() -> None:
    assert repr(Box(p=Pair(nnx.Param(1.0), jnp.sin))) == "Box(p=Pair(a=Param(1.0), b=sin))"
    lines = repr(Box(p=Pair("x" * 80, 1))).splitlines()
    assert lines == ["Box(", "  p=Pair(", f"    a='{'x' * 80}',", "    b=1,", "  ),", ")"]

    class Own(NamedTuple):
        a: int

        def __repr__(self) -> str:
            return "mine"

    assert repr(Box(p=Own(1))) == "Box(p=mine)"


def test_a_large_object_that_is_met_again_is_named() -> None:
    shared = Box(**{f"name_{i}": "x" * 10 for i in range(12)})
    small = Box(**{f"name_{i}": "x" * 10 for i in range(6)})
    lines = repr(Box(a=[shared], b={"k": shared}, c=small, d=small)).splitlines()
    assert lines[1:3] == ["  a=[", "    Box("]
    assert "  b={'k': <the Box at Box.a[0]>}," in lines
    assert sum("name_0" in line for line in lines) == 3


def test_counts_are_made_in_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Box(w=nnx.Param(jnp.ones((99, 99))), long="x" * 60)
    for _ in range(20):
        model = Box(w=nnx.Param(jnp.ones((99, 99))), inner=model, long="x" * 60)
    roots: list[Any] = []
    monkeypatch.setattr(walk.Flattener, "flatten", _counting(walk.Flattener.flatten, roots))
    assert repr(model).count("# Param: ") == 21 and len(roots) == 1


def _counting(f: Any, calls: list[Any]) -> Any:
    return lambda self, root, *rest: calls.append(root) or f(self, root, *rest)


def test_a_model_deeper_than_python_recurses() -> None:
    depth = 2 * sys.getrecursionlimit()
    model = Box(w=nnx.Param(1.0))
    for _ in range(depth):
        model = Box(w=nnx.Param(1.0), inner=model)
    lines = repr(model).splitlines()
    assert sum(line.endswith("w=Param(1.0),") for line in lines) >= depth - 2
    assert lines[depth].startswith(" " * depth)


def test_states() -> None:
    state = nnx.state(Box(b=nnx.Param(1.0), a=Box(c=nnx.Param(2.0))))
    assert repr(state) == "State({'a': State({'c': Param(2.0)}), 'b': Param(1.0)})"
    assert repr(nnx.State({})) == "State({})"
    flat = nnx.to_flat_state(state)
    assert repr(flat) == "FlatState([\n  ('a', 'c'): Param(2.0),\n  ('b',): Param(1.0),\n])"
    assert repr(nnx.FlatState([])) == "FlatState([])"
    unpacked = nnx.unpack(Box(b=nnx.Param(1.0)))
    assert repr(unpacked) == (
        "GraphState(GraphDef(2 nodes, 1 leaves: Box, Param), State({'b': Param(1.0)}))"
    )


def test_what_is_wrong_with_an_object_does_not_hide_it() -> None:
    assert repr(Box(bad={Box()})) == "Box(bad={Box()})"
