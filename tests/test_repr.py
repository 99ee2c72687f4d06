"""What a person reads of objects, Variables and States."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import weft as nnx
from weft._repr import array_text, count_text, dtype_text


class Box(nnx.Module):
    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)


class Pair(NamedTuple):
    a: Any
    b: Any


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (jnp.float32(2.5), "f32[] 2.5"),
        (np.arange(3), "i64[3] [0, 1, 2]"),
        (jnp.zeros((2, 2), jnp.bfloat16), "bf16[2,2] [[0, 0], [0, 0]]"),
        (jnp.zeros(9), "f32[9]"),
        (jnp.array([True, False]), "bool[2] [ True, False]"),
        (jax.ShapeDtypeStruct((2, 3), jnp.int8), "i8[2,3]"),
        (jax.random.key(0), "key<fry>[]"),
        (np.zeros(2, np.uint8), "u8[2] [0, 0]"),
        (np.zeros(1, np.complex64), "c64[1] [0.+0.j]"),
    ],
    ids=str,
)
def test_arrays(value: Any, text: str) -> None:
    assert array_text(value) == text
    assert repr(nnx.Param(value)) == f"Param({text})"


def test_dtypes() -> None:
    assert dtype_text(jnp.float8_e4m3fn.dtype) == "f8_e4m3fn"
    assert dtype_text(jnp.dtype("float64")) == "f64"


def test_arrays_without_numbers() -> None:
    deleted = jnp.ones(2) + 1
    deleted.delete()
    assert array_text(deleted) == "f32[2]"
    texts = []
    nnx.jit(lambda m: texts.append(repr(m)))(Box(w=nnx.Param(jnp.ones(2))))
    assert texts == ["Box(w=Param(f32[2]))"]
    mesh = Mesh(np.array(jax.devices()[:2]), ("x",))
    sharded = jax.device_put(jnp.ones(4), NamedSharding(mesh, PartitionSpec("x")))
    assert array_text(sharded) == "f32[4] [1., 1., 1., 1.]"


@pytest.mark.parametrize(
    ("number", "size", "text"),
    [
        (0, 0, "0 (0 B)"),
        (999, 999, "999 (999 B)"),
        (1234, 4936, "1,234 (4.9 KB)"),
        (10**9, 4 * 10**9, "1,000,000,000 (4.0 GB)"),
        (1, 5 * 10**15, "1 (5000.0 TB)"),
    ],
)
def test_counts(number: int, size: int, text: str) -> None:
    assert count_text(number, size) == text


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
        "Box(act=relu, f=sin, kind=Param, none=None, one=(1,), partial=partial(sum, ...))"
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
    model = Box(x=1)
    model.me = Pair(model, [1])
    assert repr(model) == "Box(me=Pair(a=<the Box above>, b=[1]), x=1)"
    assert repr(model.me).startswith("Pair(a=Box(me=Pair(a=")


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
