"""The walk: whatever is taken apart comes together again."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weft as nnx
from tests.graph.graphs import Box, Foreign, Pair, buffers, check_same, graphs
from weft._core.static import Static
from weft._graph.records import (
    ARRAY,
    Late,
    LateRef,
    NodeDef,
    OldLeaf,
    OldStatic,
    Ref,
    ValueDef,
    VariableDef,
)
from weft._graph.walk import Builder, Flattener, Table, extra_of, items_of, make_variable

# -- properties of random graphs


@given(graphs())
def test_merge_undoes_split(graph: Any) -> None:
    graphdef, state = nnx.split(graph)
    merged = nnx.merge(graphdef, state)
    check_same(graph, merged, identical=True)
    assert nnx.graphdef(merged) == graphdef
    assert hash(nnx.graphdef(merged)) == hash(graphdef)


@given(graphs())
def test_flatten_is_deterministic(graph: Any) -> None:
    (first, a), (second, b) = nnx.split(graph), nnx.split(graph)
    assert first == second
    assert hash(first) == hash(second)
    left, right = nnx.to_flat_state(a), nnx.to_flat_state(b)
    assert left.paths == right.paths
    assert all(x is y for x, y in zip(left.leaves, right.leaves, strict=True))


@given(graphs())
def test_clone_shares_nothing(graph: Any) -> None:
    clone = nnx.clone(graph)
    check_same(graph, clone)
    assert nnx.graphdef(clone) == nnx.graphdef(graph)
    assert not buffers(clone) & buffers(graph)


@settings(max_examples=30)
@given(graphs())
def test_through_a_transform_and_back(graph: Any) -> None:
    before = nnx.clone(graph)
    held = [value for _, value in nnx.iter_graph(graph)]
    out = nnx.grad(lambda x, g: (x, g), has_aux=True)(jnp.ones(()), graph)[1]
    assert out is graph
    check_same(before, graph)
    assert all(a is b for a, b in zip(held, [v for _, v in nnx.iter_graph(graph)], strict=True))


@settings(max_examples=50)
@given(graphs(), st.data())
def test_graphdefs_compare_by_value(graph: Any, data: Any) -> None:
    before, clone = nnx.graphdef(graph), nnx.clone(graph)
    kinds = (nnx.Dict, dict, Box, nnx.List, list)
    nodes = [node for _, node in nnx.iter_graph(clone) if isinstance(node, kinds)]
    node = data.draw(st.sampled_from(nodes))
    values = [1, True, nnx.Param(1.0), nnx.BatchStat(1.0), clone]
    if isinstance(node, nnx.Pytree):
        values.append(nnx.data(1))
    found = [before]
    for value in values:
        if isinstance(node, (nnx.List, list)):
            node.append(value)
        elif isinstance(node, (nnx.Dict, dict)):
            node["z"] = value
        else:
            node.z = value
        found.append(nnx.graphdef(clone))
        if isinstance(node, (nnx.List, list)):
            node.pop()
        elif isinstance(node, (nnx.Dict, dict)):
            del node["z"]
        else:
            del node.z
        assert nnx.graphdef(clone) == before
    assert len(set(found)) == len(found)


# -- what the records say


def record_of(value: Any, **options: Any) -> Any:
    return Flattener(**options).flatten(value)


def test_records() -> None:
    shared = nnx.Param(1.0, tag="x")
    model = Box(
        array=jnp.ones(1),
        none=None,
        pair=Pair(shared, 2),
        rate=nnx.data(1.0),
        shared=shared,
        static=(1, 2),
    )
    record = record_of(model)
    assert isinstance(record, NodeDef)
    assert (record.index, record.type) == (0, Box)
    assert record.keys == ("array", "none", "pair", "rate", "shared", "static")
    array, none, pair, rate, again, static = record.children
    assert array == rate == ARRAY
    assert none == Static(None)
    assert isinstance(pair, ValueDef)
    assert (pair.how, pair.keys) == (Pair, ("left", "right"))
    assert isinstance(pair.children[0], VariableDef)
    assert pair.children[0].metadata.value == {"tag": "x"}
    assert pair.children[0].treedef is None
    assert pair.children[1] == Static(2)
    assert again == Ref(1)
    assert static == Static((1, 2))
    assert static.value == model.static
    assert record.extra == Static({"rate": True})


def test_the_order_of_a_dict_counts() -> None:
    a, b = jnp.ones(1), jnp.zeros(1)
    ordered, reverse = Box(d={"a": a, "b": b}), Box(d={"b": b, "a": a})
    assert nnx.graphdef(ordered) != nnx.graphdef(reverse)
    assert list(nnx.clone(reverse).d) == ["b", "a"]
    assert nnx.to_flat_state(nnx.state(reverse)).paths == (("d", "a"), ("d", "b"))
    mixed = Box(d={"x": a, 10: b, 9: a, (1,): b})
    assert list(nnx.clone(mixed).d) == ["x", 10, 9, (1,)]
    paths = nnx.to_flat_state(nnx.state(mixed)).paths
    assert paths == (("d", 9), ("d", 10), ("d", "x"), ("d", (1,)))


def test_own_static_values_come_back() -> None:
    class Config:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Config)

        __hash__ = None  # type: ignore[assignment]

    a, b = Box(c=Config()), Box(c=Config())
    assert nnx.graphdef(a) == nnx.graphdef(b)
    for model in (a, b):
        assert nnx.merge(*nnx.split(model)).c is model.c


def test_statics_that_differ_by_type() -> None:
    values = [1, True, 1.0, 0.0, -0.0, float("nan"), "1", (1,), (True,), None]
    graphdefs = {nnx.graphdef(Box(x=value)) for value in values}
    assert len(graphdefs) == len(values)
    assert nnx.graphdef(Box(x=float("nan"))) == nnx.graphdef(Box(x=float("nan")))


# -- arguments of a function, as JAX sees them


def test_arguments() -> None:
    record = record_of([1, {"b": 2.0, "a": None}, "text", (Box(),)], arguments=True)
    assert isinstance(record, ValueDef)
    number, mapping, text, last = record.children
    assert number == text == ARRAY
    assert mapping == ValueDef(dict, ("a", "b"), (Static(None), ARRAY))
    assert isinstance(last.children[0], NodeDef)
    flattener = Flattener(arguments=True)
    flattener.flatten([1, 2])
    assert [entry.path for entry in flattener.entries] == [(0,), (1,)]


def test_argument_containers_come_out_as_jax_makes_them() -> None:
    counted = collections.defaultdict(list, {"b": 1.0, "a": 2.0})
    ordered = collections.OrderedDict(b=1.0, a=2.0)

    def look(*args: Any) -> Any:
        assert args[0].default_factory is list
        assert list(args[1]) == ["b", "a"]
        assert list(args[2]) == ["a", "b"]
        return args

    found, expected = (
        transform(look)(counted, ordered, {"b": 1.0, "a": 2.0}) for transform in (nnx.jit, jax.jit)
    )
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert found[0].default_factory is list
    assert list(found[1]) == ["b", "a"]


# -- sharing and aliases


def test_shared_references_refused() -> None:
    child = Box()
    for model, first, second in (
        (Box(a=child, b=[child]), r"Box\.a", r"Box\.b\[0\]"),
        (Box(x=[(child,), {"k": child}]), r"Box\.x\[0\]\[0\]", r"Box\.x\[1\]\.k"),
    ):
        found = rf"the same Box is reached at {first} and at {second}: .* `graph=True`"
        with pytest.raises(nnx.SharedReferenceError, match=found):
            record_of(model, share=False, root="Box")
    own: list[Any] = [jnp.ones(1)]
    own.append(own)
    with pytest.raises(nnx.SharedReferenceError, match="the same list is reached at the object"):
        record_of(own, share=False)
    assert isinstance(record_of(Box(a=child, b=child)).children[1], Ref)


def test_static_containers_may_be_shared_in_any_case() -> None:
    config = {"sizes": [1]}
    record = record_of(Box(a=config, b=[config]), share=False)
    assert record.children[1].children == (Ref(1),)
    config["array"] = jnp.ones(1)
    with pytest.raises(nnx.SharedReferenceError, match=r"the same dict is reached at a and at b"):
        record_of(Box(a=config, b=[config]), share=False)


def test_arrays_have_no_identity() -> None:
    array = jnp.ones(1)
    assert record_of(Box(a=array, b=array), share=False).children == (ARRAY, ARRAY)


def test_aliases_under_two_prefixes() -> None:
    variable = nnx.Param(1.0)
    flattener = Flattener(root="args")
    flattener.flatten(Box(a=variable), ("x",), 0)
    found = (
        r"the same Param is reached under two prefixes: args\.x\.a has 0, args\.y\[0\] has None\. "
        r"Give both the same one, or pass a copy: `nnx\.clone\(model\)`"
    )
    with pytest.raises(nnx.AliasError, match=found):
        flattener.flatten([variable], ("y",), None)
    Flattener(flattener.table, check_aliases=False).flatten([variable], ("y",), None)


def test_aliases_of_containers_are_looked_into() -> None:
    shared = [nnx.Param(1.0)]
    flattener = Flattener()
    flattener.flatten(Box(a=shared), ("x",), 0)
    flattener.flatten(Box(a=shared), ("z",), 0)
    with pytest.raises(nnx.AliasError, match=r"x\.a\[0\] has 0, y\.b\[0\] has 1"):
        flattener.flatten(Box(b=shared), ("y",), 1)


def test_a_cycle_under_two_prefixes_ends() -> None:
    box = Box(w=nnx.Param(1.0))
    box.me = box
    with pytest.raises(nnx.AliasError, match=r"x\.w has 0, x\.me\.w has None"):
        Flattener().flatten(box, ("x",), {"w": 0, "me": None})
    flattener = Flattener()
    flattener.flatten(box, ("x",), 0)
    flattener.flatten(box, ("z",), 0)
    with pytest.raises(nnx.AliasError, match=r"x\.w has 0, y\.w has None"):
        flattener.flatten(box, ("y",), None)


# -- building


def test_old_objects_are_referred_to() -> None:
    box = Box(w=nnx.Param(1.0))
    table = Table()
    Flattener(table).flatten(box)
    flattener = Flattener(table)
    record = flattener.flatten([box, box.w, Box(w=box.w)])
    assert record.children[:2] == (Ref(0), Ref(1))
    assert record.children[2].index == 3
    assert flattener.entries == []
    builder = Builder(lambda r: make_variable(r, 0.0), lambda: 0.0, dict(enumerate(table.objects)))
    new = builder.build(record)
    assert new[0] is box
    assert new[1] is box.w
    assert new[2].w is box.w


def test_known_arrays_do_not_come_out_again() -> None:
    old, new = jnp.ones(1), jnp.zeros(1)
    flattener = Flattener(known_arrays={id(old): 7})
    record = flattener.flatten(Box(a=new, b=old))
    assert [entry.value for entry in flattener.entries] == [new]
    builder = Builder(
        lambda r: None,  # type: ignore[arg-type]
        lambda: new,
        given={OldLeaf(7): old}.__getitem__,  # type: ignore[arg-type]
    )
    built = builder.build(record)
    assert built.a is new
    assert built.b is old


def test_known_static_values_do_not_come_out_again() -> None:
    class Config:
        rate = 0.5

    old, new = Config(), Config()
    flattener = Flattener(find_static=lambda value: 3 if value is old else None)
    record = flattener.flatten(Box(a=new, b=old, c=(old, 1), d=0.5))
    builder = Builder(
        lambda r: None,  # type: ignore[arg-type]
        lambda: None,
        given={OldStatic(3): "another"}.__getitem__,  # type: ignore[arg-type]
    )
    built = builder.build(record)
    assert built.a is new
    assert built.b == "another"
    assert built.c == ("another", 1)
    assert built.d == 0.5


def test_items() -> None:
    assert items_of(Box(b=1, a=2)) == [("a", 2), ("b", 1)]
    assert items_of({"b": 1, "a": 2}) == [("b", 1), ("a", 2)]
    assert items_of([5]) == [(0, 5)]
    assert items_of(nnx.List([5])) == [(0, 5)]
    assert items_of({1}) == [("elements", frozenset({1}))]
    assert items_of(collections.deque([5])) == [(0, 5)]
    assert items_of(types.SimpleNamespace(b=1, a=2)) == [("a", 2), ("b", 1)]


def test_what_else_nodes_are_made_from() -> None:
    assert extra_of([5]) == extra_of(Box()) == Static(None)
    assert extra_of(Box(a=nnx.data(1))) == Static({"a": True})
    assert extra_of({"a": 1}) == Static((("a",), None))
    assert extra_of(collections.defaultdict(list)) == Static(((), list))
    assert extra_of(collections.deque([1], 3)) == Static((None, 3))


# -- methods and partials


def call(*args: Any) -> Any:
    return args


def test_a_method_refers_to_its_object() -> None:
    box = Box(w=1)
    box.f = box.iter_modules
    assert record_of(box).children[0] == ValueDef(
        types.MethodType, ("__func__", "__self__"), (Static(nnx.Module.iter_modules), Ref(0))
    )
    other = Box(f=box.iter_modules)
    assert record_of(other).children == (Late(Static(box.iter_modules)),)
    assert record_of(other).children[0].record.value == box.iter_modules


def test_a_method_refers_to_what_comes_later() -> None:
    part = Box(w=nnx.Param(1.0))
    box = Box(a=functools.partial(call, part.iter_modules, 3, key=part), b=[part])
    late = record_of(box).children[0]
    assert isinstance(late, Late)
    assert late.record.keys == ("func", 0, 1, "key")
    _, method, number, keyword = late.record.children
    assert (number, keyword) == (Static(3), LateRef(2, Box))
    assert method.children == (Static(nnx.Module.iter_modules), LateRef(2, Box))
    assert late == record_of(nnx.clone(box)).children[0] != Late(Static(1))
    assert hash(late) == hash(record_of(nnx.clone(box)).children[0])
    assert repr(late).startswith("Late(ValueDef(")
    builder = Builder(lambda record: nnx.Param(2.0), lambda: 0.0)
    built = builder.build(record_of(box))
    assert built.a.keywords["key"] is built.a.args[0].__self__ is built.b[0]
    assert built.b[0].w.value == 2.0


def test_a_method_of_a_later_root() -> None:
    part = Box(w=nnx.Param(1.0))
    flattener = Flattener(arguments=True)
    first = flattener.flatten([part.iter_modules], (0,))
    assert first.children[0].record == Static(part.iter_modules)
    flattener.flatten(part, (1,))
    assert first.children[0].record.children[1] == LateRef(0, Box)


def test_a_partial_at_two_places_is_no_shared_object() -> None:
    act = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)
    model = Box(a=act, b=act)
    assert record_of(model, share=False).children == (Static(act), Static(act))
    assert nnx.graphdef(nnx.clone(model)) == nnx.graphdef(model)


# -- containers that JAX does not know, as arguments and as results


class Chain(list):
    pass


@dataclasses.dataclass
class Output:
    loss: Any
    name: str = "out"


def test_own_containers_are_returned() -> None:
    model = Box(w=nnx.Param(jnp.ones(2)), recent=collections.deque([jnp.ones(2)]))

    @nnx.jit
    def f(m: Any) -> Any:
        space = types.SimpleNamespace(model=m, n=3)
        return Chain([m.w * 2]), Output(m.w.sum()), m.recent, space, collections.deque([m], 2)

    chain, output, recent, space, queue = f(model)
    assert type(chain) is Chain and chain[0].tolist() == [2.0, 2.0]
    assert (float(output.loss), output.name) == (2.0, "out")
    assert recent is model.recent
    assert (space.model, space.n) == (model, 3)
    assert (queue[0], queue.maxlen) == (model, 2)


def test_own_containers_as_arguments() -> None:
    chain = Chain([jnp.ones(2), 3.0])
    grads = nnx.grad(lambda c: (c[0] * c[1]).sum())(chain)
    assert grads[0].tolist() == [3.0, 3.0]
    space = types.SimpleNamespace(model=Box(w=nnx.Param(jnp.ones(2))))
    nnx.grad(lambda x, s: s.model.w[...].sum() * x)(1.0, space)
    assert nnx.eval_shape(lambda s: s.model.w * 2, space).shape == (2,)


def test_foreign_pytrees_and_their_static_part() -> None:
    model = Box(f=Foreign(jnp.ones(1), "x"), g=Foreign(3, "y"))
    graphdef, state = nnx.split(model)
    assert nnx.to_flat_state(state).paths == (("f", "x"),)
    merged = nnx.merge(graphdef, state)
    assert (merged.f.label, merged.g.x) == ("x", 3)
    assert graphdef != nnx.graphdef(Box(f=Foreign(jnp.ones(1), "z"), g=model.g))


def test_numpy_arrays_keep_their_type() -> None:
    model = Box(x=np.arange(2), y=(np.ones(1),))
    assert type(nnx.clone(model).x) is np.ndarray
    assert nnx.merge(*nnx.split(model)).y[0] is model.y[0]
