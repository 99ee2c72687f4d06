"""Records and GraphDefs as values."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from tests.graph.graphs import Box, Pair
from weft._graph.records import (
    ARRAY,
    ArrayDef,
    Old,
    OldLeaf,
    Ref,
    describe_difference,
    inside_first,
    iter_records,
    leaves_of,
)


def model() -> Box:
    return Box(w=nnx.Param(jnp.ones(1), tag="x"), child=Box(rate=0.1), layers=[nnx.Param(1.0)])


def test_records_of_different_classes_differ() -> None:
    assert len({Ref(0), Old(0), OldLeaf(0), ARRAY}) == 4
    assert ARRAY == ArrayDef()


def test_orders_of_records() -> None:
    root = nnx.graphdef(model()).root
    down = [path for path, _ in iter_records(root)]
    up = [path for path, _ in inside_first(root)]
    assert down[0] == up[-1] == ()
    assert down.index(("child",)) < down.index(("child", "rate"))
    assert up.index(("child",)) > up.index(("child", "rate"))
    assert sorted(map(str, down)) == sorted(map(str, up))
    assert [path for path, _ in leaves_of(root)] == [("layers", 0), ("w",)]


def test_what_a_graphdef_tells() -> None:
    graphdef = nnx.graphdef(model())
    assert graphdef.num_leaves == 2
    assert [r.type.__name__ for r in graphdef.nodes] == ["Box", "Box", "list", "Param", "Param"]
    assert [key for key, _ in graphdef.attributes] == ["child", "rate", "layers", 0, "w"]
    expected = "GraphDef(5 nodes, 2 leaves: Box, Box, list, Param, Param)"
    assert repr(graphdef) == expected
    many = nnx.graphdef(Box(x=[Box() for _ in range(9)]))
    assert repr(many) == "GraphDef(11 nodes, 0 leaves: Box, list, Box, Box, Box, Box, ...)"


def test_a_graphdef_is_a_static_pytree() -> None:
    a, b = nnx.graphdef(model()), nnx.graphdef(model())
    assert jax.tree.leaves(a) == []
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert a == b
    assert a != 1
    traces = []
    f = jax.jit(lambda graphdef: traces.append(graphdef))
    g = jax.jit(lambda graphdef, x: traces.append(graphdef), static_argnames="graphdef")
    for graphdef in (a, b):
        f(graphdef)
        g(graphdef, 1.0)
    assert len(traces) == 2


def test_a_graphdef_with_unhashable_statics_hashes() -> None:
    graphdef = nnx.graphdef(Box(config={"sizes": [1, 2]}, names={"a"}, table=(1, [2])))
    assert hash(graphdef) == hash(
        nnx.graphdef(Box(config={"sizes": [1, 2]}, names={"a"}, table=(1, [2])))
    )


@pytest.mark.parametrize(
    "through", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies(through: Any) -> None:
    graphdef, state = nnx.split(model())
    hash(graphdef)
    new = through(graphdef)
    assert new == graphdef
    assert hash(new) == hash(graphdef)
    assert nnx.merge(new, state).child.rate == 0.1


def test_a_graphdef_of_another_process() -> None:
    code = (
        "import pickle, sys, weft as nnx\n"
        "layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))\n"
        "hash(nnx.graphdef(layer))\n"
        "sys.stdout.buffer.write(pickle.dumps(nnx.split(layer)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    graphdef, state = pickle.loads(done.stdout)
    own = nnx.graphdef(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert graphdef == own
    assert {graphdef: 1}[own] == 1
    assert nnx.merge(graphdef, state).kernel.shape == (2, 3)


def difference(a: Any, b: Any) -> Any:
    return describe_difference(nnx.graphdef(a).root, nnx.graphdef(b).root)


def test_differences_in_words() -> None:
    shared = nnx.Param(1.0)
    cases: list[tuple[Any, Any, Any]] = [
        (Box(a=1), Box(a=1), None),
        (Box(a=1), Box(a=True), (("a",), "1 (static)", "True (static)")),
        (Box(a=1, b=2), Box(a=1), (("b",), "2 (static)", "nothing")),
        (Box(), Box(b=Box()), (("b",), "nothing", "a Box")),
        (Box(x=[1]), Box(x=[1, jnp.ones(1)]), (("x", 1), "nothing", "an array")),
        (
            Box(w=nnx.Param(1.0)),
            Box(w=nnx.Param(1.0, tag="x")),
            (("w",), "a Param", "a Param with metadata {'tag': 'x'}"),
        ),
        (
            Box(a=shared, b=shared),
            Box(a=nnx.Param(1.0), b=nnx.Param(1.0)),
            (("b",), "a reference to object 1", "a Param"),
        ),
        (
            Box(x=Pair(shared, 1)),
            Box(x=(shared, 1)),
            (("x", "left"), "a Param", "nothing"),
        ),
        (Box(x=(shared,)), Box(x="a"), (("x",), "a tuple", "'a' (static)")),
        (Box(), nnx.List(), ((), "a Box", "a List")),
    ]
    for a, b, expected in cases:
        assert difference(a, b) == expected
