"""Assemblies make what a builder makes, one object after the other."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import given

import weft as nnx
from tests.graph.graphs import Box, Foreign, Pair, check_same, graphs
from tests.lift.zoo import Zoo, look
from weft._graph.assembly import Assembly, assembly_of
from weft._graph.walk import Builder, Flattener


def built_both_ways(node: Any) -> tuple[Any, Any]:
    flattener = Flattener()
    record = flattener.flatten(node)
    values = [entry.value for entry in flattener.entries]

    def own(value: Any) -> Any:
        return value.copy() if isinstance(value, nnx.Variable) else value

    remaining = map(own, values)
    one_by_one = Builder(lambda record: next(remaining), lambda: next(remaining)).build(record)
    return Assembly(record).build(list(map(own, values))), one_by_one


@given(graphs())
def test_random_graphs(graph: Any) -> None:
    at_once, one_by_one = built_both_ways(graph)
    check_same(at_once, one_by_one, identical=True)
    check_same(graph, at_once, identical=True)


def test_everything_that_a_graph_may_hold() -> None:
    zoo = Zoo()
    at_once, one_by_one = built_both_ways(zoo)
    assert look(at_once)[1] == look(one_by_one)[1]
    assert at_once.method.__self__ is at_once.layers[0]
    assert list(at_once.default) == ["a"] and at_once.default.default_factory is list


def test_cycles_through_values_and_containers() -> None:
    box = Box()
    box.pair = Pair(box, [box])
    box.foreign = Foreign(Box(weight=nnx.Param(1.0), up=box))
    merged = nnx.merge(*nnx.split(box))
    assert merged.pair.left is merged and merged.pair.right[0] is merged
    assert merged.foreign.x.up is merged
    assert merged.foreign.x.weight.value == 1.0


def test_marks_and_the_order_of_attributes() -> None:
    box = Box(b=nnx.data(1.0), a=nnx.static(jnp.ones(1)), c=nnx.Param(1.0))
    for _ in range(2):
        merged = nnx.merge(*nnx.split(box))
        assert dict(nnx.to_flat_state(nnx.state(merged))).keys() == {("b",), ("c",)}
        assert merged.a is box.a
        assert list(vars(merged)) == ["a", "b", "c"]


@pytest.mark.parametrize("root", [nnx.Param(1.0), [nnx.Param(1.0), 2], {}, (), nnx.List([])])
def test_roots_of_all_kinds(root: Any) -> None:
    check_same(root, nnx.merge(*nnx.split(root)), identical=True)


def test_one_assembly_makes_many_objects() -> None:
    graphdef, state = nnx.split(Zoo())
    first, second = nnx.merge(graphdef, state), nnx.merge(graphdef, state)
    assert assembly_of(graphdef) is assembly_of(graphdef)
    objects = {id(x) for _, x in nnx.iter_graph(first) if isinstance(x, (nnx.Module, list, dict))}
    others = {id(x) for _, x in nnx.iter_graph(second) if isinstance(x, (nnx.Module, list, dict))}
    assert objects and not objects & others
    first.size = 8
    first.names.add("new")
    assert second.size == 3 and nnx.merge(graphdef, state).size == 3


def test_methods_of_what_comes_later() -> None:
    part = Box(w=nnx.Param(1.0))
    box = Box(a=part.iter_modules, b=[functools.partial(nnx.state, part)], part=part)
    box.pair = Pair(box.iter_children, part.iter_modules)
    for built in built_both_ways(box):
        assert built.a.__self__ is built.b[0].args[0] is built.part
        assert built.pair.left.__self__ is built
        assert built.pair.right.__self__ is built.part
    merged = nnx.merge(*nnx.split(box))
    assert merged.a.__self__ is merged.part
