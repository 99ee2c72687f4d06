"""Going over a graph, and rebuilding it from changed parts."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import given

import weft as nnx
from tests.graph.graphs import Box, check_same, graphs


def model() -> Box:
    shared = nnx.Param(1.0)
    return Box(
        layers=[Box(w=shared), nnx.Dict(w=nnx.Param(2.0))],
        tied=shared,
        raw=jnp.ones(1),
        table=nnx.static(jnp.zeros(1)),
        pair=(Box(), 1),
        name="x",
    )


def test_everything_once_and_inside_first() -> None:
    obj = model()
    found = list(nnx.iter_graph(obj))
    assert [path for path, _ in found] == [
        ("layers", 0, "w"),
        ("layers", 0),
        ("layers", 1, "w"),
        ("layers", 1),
        ("layers",),
        ("pair", 0),
        ("raw",),
        (),
    ]
    values = dict(found)
    assert values[()] is obj
    assert values["layers",] is obj.layers
    assert values["layers", 0, "w"] is obj.tied
    assert values["raw",] is obj.raw


def test_roots_that_are_no_objects() -> None:
    box, variable = Box(), nnx.Param(1.0)
    assert [path for path, _ in nnx.iter_graph((box, variable))] == [(0,), (1,), ()]
    assert list(nnx.iter_graph(variable)) == [((), variable)]
    assert list(nnx.iter_graph(3)) == [((), 3)]


def test_cycles_end() -> None:
    obj = Box()
    obj.me = [obj]
    assert [path for path, _ in nnx.iter_graph(obj)] == [("me",), ()]


def test_shared_references_on_request() -> None:
    for iterate in (nnx.iter_graph, nnx.iter_modules, nnx.iter_children, nnx.iter_module_children):
        with pytest.raises(nnx.SharedReferenceError, match=r"Box\.layers\[0\]\.w and at Box\.tied"):
            list(iterate(model(), graph=False))


def test_children_and_modules() -> None:
    obj = model()
    obj.layer = Box()
    obj.plain = nnx.Pytree()
    assert [key for key, _ in nnx.iter_children(obj)] == ["layer", "plain"]
    assert [key for key, _ in nnx.iter_module_children(obj)] == ["layer"]
    assert [path for path, _ in nnx.iter_modules(obj)] == [
        ("layer",),
        ("layers", 0),
        ("layers", 1),
        ("pair", 0),
        (),
    ]


@given(graphs())
def test_rebuilding_without_change(graph: Any) -> None:
    check_same(graph, nnx.recursive_map(lambda path, x: x.copy() if is_variable(x) else x, graph))
    check_same(graph, nnx.map(lambda path, x: x, graph))


def is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


def test_recursive_map() -> None:
    obj = model()
    seen = []

    def change(path: Any, x: Any) -> Any:
        seen.append(path)
        if isinstance(x, nnx.Dict):
            return "a dict was here"
        if isinstance(x, Box):
            x.seen = path
        return x

    new = nnx.recursive_map(change, obj)
    assert seen == [path for path, _ in nnx.iter_graph(obj)]
    assert new.layers[1] == "a dict was here"
    assert new.layers[0].seen == ("layers", 0)
    assert new.tied is new.layers[0].w is obj.tied
    assert not hasattr(obj, "seen")
    assert isinstance(obj.layers[1], nnx.Dict)


def test_map_over_leaves() -> None:
    obj = model()
    new = nnx.map(lambda path, x: x.replace(x * 2) if is_variable(x) else x + 1, obj)
    assert new.tied.value == 2.0
    assert new.tied is new.layers[0].w
    assert new.layers[1]["w"].value == 4.0
    assert new.raw.tolist() == [2.0]
    assert new.table is obj.table
    assert obj.tied.value == 1.0
    same = nnx.map(lambda path, x: x, obj)
    assert same.tied is not obj.tied
    assert nnx.map(lambda path, x: x, obj, recreate_variables=False).tied is obj.tied
    with pytest.raises(nnx.SharedReferenceError):
        nnx.map(lambda path, x: x, obj, graph=False)
