"""`split`, `merge`, `update`, `clone`, `pop` and their like."""

from __future__ import annotations

import re
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.graph.graphs import Box, buffers


def model() -> Box:
    return Box(
        w=nnx.Param(jnp.ones(2), tag="head"),
        layers=[Box(w=nnx.Param(jnp.zeros(1))), Box(n=nnx.BatchStat(jnp.ones(())))],
        tree=nnx.Cache({"k": jnp.zeros(1), "v": jnp.ones(1)}),
        raw=jnp.arange(2.0),
        rate=0.5,
    )


PATHS = (("layers", 0, "w"), ("layers", 1, "n"), ("raw",), ("tree",), ("w",))


# -- split and state


def test_split() -> None:
    obj = model()
    graphdef, state = nnx.split(obj)
    assert nnx.to_flat_state(state).paths == PATHS
    graphdef_too, params, stats, rest = nnx.split(obj, nnx.Param, nnx.BatchStat, ...)
    assert graphdef_too == graphdef == nnx.graphdef(obj)
    assert nnx.to_flat_state(params).paths == (("layers", 0, "w"), ("w",))
    assert nnx.to_flat_state(stats).paths == (("layers", 1, "n"),)
    assert nnx.to_flat_state(rest).paths == (("raw",), ("tree",))


def test_split_leaves_nothing_over() -> None:
    found = re.escape("leave 3 of the Variables over: layers[1].n (BatchStat), raw (ArrayImpl), tr")
    with pytest.raises(nnx.FilterError, match=found):
        nnx.split(model(), nnx.Param)
    with pytest.raises(nnx.FilterError, match=r"`\.\.\.` matches everything"):
        nnx.split(model(), ..., nnx.Param)


def test_state() -> None:
    obj = model()
    assert nnx.state(obj) == nnx.variables(obj) == nnx.split(obj)[1]
    assert nnx.to_flat_state(nnx.state(obj, nnx.BatchStat)).paths == (("layers", 1, "n"),)
    params, tagged = nnx.state(obj, nnx.Param, "head")
    assert len(nnx.to_flat_state(params)) == 2
    assert tagged == nnx.State({})


def test_roots_of_all_kinds() -> None:
    variable = nnx.Param(1.0)
    assert nnx.state(variable) is variable
    assert nnx.state(variable, nnx.Param) is variable
    assert nnx.state(variable, nnx.BatchStat) == nnx.State({})
    graphdef, held, rest = nnx.split(variable, nnx.Param, ...)
    assert held is variable
    assert rest == nnx.State({})
    merged = nnx.merge(graphdef, held)
    assert merged is not variable
    assert merged.value == 1.0
    for root in ((model(), {"a": variable}), [variable], {"b": variable, "a": jnp.ones(1)}, 3):
        merged = nnx.merge(*nnx.split(root))
        assert nnx.graphdef(merged) == nnx.graphdef(root)
    array = jnp.ones(1)
    assert nnx.merge(*nnx.split(array)) is array


def test_sharing_is_refused_on_request() -> None:
    shared = Box(a=[1], b=nnx.Param(1.0))
    shared.c = [shared.b]
    for use in (nnx.split, nnx.state, nnx.graphdef, nnx.clone, nnx.unpack):
        with pytest.raises(nnx.SharedReferenceError, match=r"Box\.b and at Box\.c\[0\]"):
            use(shared, graph=False)


# -- merge


def test_merge_takes_many_forms() -> None:
    obj = model()
    graphdef, params, rest = nnx.split(obj, nnx.Param, ...)
    state = nnx.state(obj)
    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    forms: dict[str, tuple[Any, ...]] = {
        "states": (rest, params),
        "one state": (state,),
        "flat state": (nnx.to_flat_state(state),),
        "pure dict": (nnx.to_pure_dict(state),),
        "nested dict": (state.raw_mapping,),
        "leaves": (jax.tree.leaves(state, is_leaf=is_variable),),
        "tuple of leaves": (tuple(nnx.to_flat_state(state).leaves),),
        "graph states": (nnx.unpack(obj, nnx.Param, ...)[1], params),
    }
    for name, states in forms.items():
        first = nnx.unpack(obj, nnx.Param, ...)[0] if name == "graph states" else graphdef
        merged = nnx.merge(first, *states)
        assert nnx.graphdef(merged) == graphdef, name
        assert nnx.state(merged) == state, name
        assert merged.w is not obj.w


def test_merge_of_abstract_values() -> None:
    obj = model()
    graphdef, state = nnx.split(obj)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.float32), state)
    assert nnx.merge(graphdef, shapes).w.value == jax.ShapeDtypeStruct((2,), jnp.float32)


def test_leaves_are_taken_in_the_order_of_paths() -> None:
    obj = Box(items={10: nnx.Param(10.0), 9: nnx.Param(9.0), "x": nnx.Param(0.0)})
    graphdef = nnx.graphdef(obj)
    merged = nnx.merge(graphdef, [9.0, 10.0, 0.0])
    assert [(key, v.value) for key, v in merged.items.items()] == [(10, 10.0), (9, 9.0), ("x", 0.0)]
    with pytest.raises(
        nnx.StructureError, match="expected a list of 3 leaves, one per Variable, fo"
    ):
        nnx.merge(graphdef, [1.0])


def test_a_state_that_does_not_fit() -> None:
    graphdef, state = nnx.split(model())
    state["extra"] = {0: nnx.Param(1.0)}
    del state["layers"][0]
    del state["raw"]
    expected = (
        "the state does not fit the GraphDef of 5 leaves:\n"
        "  missing: layers[0].w\n"
        "  missing: raw\n"
        "  unexpected: extra[0]\n"
        "Give `merge` every State that `split` returned, as it returned them"
    )
    with pytest.raises(nnx.StructureError, match=re.escape(expected)):
        nnx.merge(graphdef, state)
    for wrong in (3, jnp.ones(1), "state"):
        with pytest.raises(nnx.StructureError, match="expected a State or a nested dict, found a"):
            nnx.merge(graphdef, wrong)


def test_a_layout_with_values_one_level_deeper() -> None:
    obj = model()
    nested = nnx.to_pure_dict(nnx.state(obj))
    nested["w"] = {"value": nested["w"]}
    with pytest.raises(nnx.StructureError, match=r"missing: w\n  unexpected: w\.value"):
        nnx.merge(nnx.graphdef(obj), nested)
    with pytest.raises(nnx.StructureError, match=r"unexpected: w\.value"):
        nnx.update(obj, nested)


def test_merge_needs_a_graphdef() -> None:
    found = re.escape("expected a GraphDef, found a State: `nnx.merge(*nnx.split(model))`")
    with pytest.raises(nnx.StructureError, match=found):
        nnx.merge(nnx.state(model()))


def test_variables_of_a_merged_model() -> None:
    obj = model()
    graphdef, state = nnx.split(obj)
    for options, reused in (
        ({}, False),
        ({"copy": True}, False),
        ({"copy": False}, True),
        ({"recreate_variables": False}, True),
        ({"recreate_variables": True, "copy": False}, False),
    ):
        merged = nnx.merge(graphdef, state, **options)
        assert (merged.w is obj.w) is reused
        assert merged.w.value is obj.w.value
        assert merged.raw is obj.raw
    nnx.merge(graphdef, state).w.set_metadata(tag="changed")
    assert obj.w.tag == "head"


# -- clone


def test_clone() -> None:
    obj = model()
    obj.me, obj.tied = obj, obj.w
    clone = nnx.clone(obj)
    assert clone.me is clone
    assert clone.tied is clone.w
    assert nnx.graphdef(clone) == nnx.graphdef(obj)
    assert not buffers(clone) & buffers(obj)
    clone.w[...] = jnp.zeros(2)
    clone.layers.append(1)
    assert obj.w[...].tolist() == [1.0, 1.0]
    assert len(obj.layers) == 2


def test_clones_that_share() -> None:
    obj = model()
    around = nnx.clone(obj, arrays=False)
    assert around.w is not obj.w
    assert around.w.value is obj.w.value
    own = nnx.clone(obj, variables=False)
    assert own is not obj
    assert own.w is obj.w


def test_one_array_in_two_variables_becomes_two() -> None:
    array = jnp.ones(1)
    clone = nnx.clone(Box(a=nnx.Param(array), b=nnx.Param(array), c=array))
    pointers = {x.unsafe_buffer_pointer() for x in (clone.a.value, clone.b.value, clone.c)}
    assert len(pointers) == 3


def test_clone_of_other_leaves() -> None:
    shape = jax.ShapeDtypeStruct((1,), jnp.float32)
    obj = Box(s=nnx.Param(shape), n=nnx.Param(1.5), x=np.ones(1), none=nnx.Param(None))
    clone = nnx.clone(obj)
    assert clone.s.value is shape
    assert clone.n.value == 1.5
    assert clone.x is not obj.x
    assert clone.none.value is None
    traced = jax.jit(lambda b: nnx.clone(b).x)(Box(x=jnp.ones(1)))
    assert traced.tolist() == [1.0]


# -- pop


def test_pop() -> None:
    obj = model()
    weight = obj.w
    params, stats = nnx.pop(obj, nnx.Param, nnx.BatchStat)
    assert params.w is weight
    assert nnx.to_flat_state(stats).paths == (("layers", 1, "n"),)
    assert nnx.to_flat_state(nnx.state(obj)).paths == (("raw",), ("tree",))
    assert nnx.pop(obj, nnx.Param) == nnx.State({})


def test_pop_from_containers_and_all_places() -> None:
    shared = nnx.Param(1.0)
    obj = Box(
        a=shared,
        items=[1, shared, 2, nnx.Param(3.0)],
        d={"x": shared, "y": 1},
        l=nnx.List([shared]),
    )
    popped = nnx.pop(obj, nnx.Param)
    assert nnx.to_flat_state(popped).paths == (("a",), ("items", 3))
    assert obj.items == [1, 2]
    assert obj.d == {"y": 1}
    assert len(obj.l) == 0
    assert not hasattr(obj, "a")


def test_pop_of_arrays() -> None:
    array = jnp.array(1)
    obj = {"a": {"b": array, "c": nnx.Param(jnp.array(2)), "d": array}, "l": [array, 3]}
    is_one = lambda path, x: path[-1] in ("b", "c", 0)  # noqa: E731
    popped = nnx.pop(obj, is_one)
    assert nnx.to_flat_state(popped).paths == (("a", "b"), ("a", "c"), ("l", 0))
    assert obj == {"a": {"d": array}, "l": [3]}
    box = Box(t=(array,), x=array)
    with pytest.raises(nnx.StructureError, match=r"Box\.t\[0\] matches, but what holds it"):
        nnx.pop(box, ...)
    assert nnx.to_flat_state(nnx.pop(box, lambda path, _: path == ("x",))).paths == (("x",),)
    assert not hasattr(box, "x")


def test_what_cannot_be_popped() -> None:
    shared = nnx.Param(1.0)
    with pytest.raises(ValueError, match=re.escape("`nnx.pop(model, nnx.Intermediate)`")):
        nnx.pop(Box())
    for obj, where in (
        (Box(a=shared, t=(shared,)), r"Box\.t\[0\]"),
        (Box(t=[(1, shared)]), r"Box\.t\[0\]\[1\]"),
        (shared, "Param"),
        ((shared,), r"tuple\[0\]"),
    ):
        before = nnx.graphdef(obj)
        with pytest.raises(
            nnx.StructureError, match=f"{where} matches, but what holds it .a tuple"
        ):
            nnx.pop(obj, nnx.Param)
        assert nnx.graphdef(obj) == before


def test_pop_from_a_captured_model() -> None:
    obj = Box(items=[nnx.Param(1.0)], w=nnx.Param(1.0))
    with pytest.raises(nnx.TraceContextError, match=r"cannot change Box\.w"):
        jax.jit(lambda x: nnx.pop(obj, nnx.Param))(1.0)
    assert len(obj.items) == 1


# -- the rest


def test_find_duplicates() -> None:
    shared, variable = Box(), nnx.Param(1.0)
    obj = Box(a=shared, b=[shared, variable], c=(variable,), items=[1])
    obj.d = obj.items
    obj.me = obj
    found = nnx.find_duplicates(obj)
    assert sorted(map(repr, found)) == sorted(
        map(
            repr,
            [
                [(), ("me",)],
                [("a",), ("b", 0)],
                [("b", 1), ("c", 0)],
                [("d",), ("items",)],
            ],
        )
    )
    assert nnx.find_duplicates(obj, only=nnx.Variable) == [[("b", 1), ("c", 0)]]
    assert nnx.find_duplicates(Box(a=Box())) == []


def test_set_metadata() -> None:
    obj = model()
    nnx.set_metadata(obj, frozen=True)
    assert obj.w.get_metadata() == {"tag": "head", "frozen": True}
    assert obj.layers[1].n.frozen
    nnx.set_metadata(obj, only=nnx.BatchStat, frozen=False)
    assert not obj.layers[1].n.frozen
    assert obj.w.frozen


def test_as_pure() -> None:
    obj = model()
    state = nnx.as_pure(nnx.state(obj))
    assert type(state) is nnx.State
    assert state.w is obj.w.value
    assert nnx.pure((nnx.Param(1.0), 2)) == (1.0, 2)


def test_a_thread_of_its_own() -> None:
    obj, found = model(), []

    def work() -> None:
        graphdef, state = nnx.split(obj)
        merged = nnx.merge(graphdef, state)
        merged.w[...] = jnp.zeros(2)
        found.append((nnx.graphdef(merged) == graphdef, merged.w[...].tolist()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(True, [0.0, 0.0])] * 4
    assert obj.w[...].tolist() == [1.0, 1.0]


def test_states_of_an_object_that_is_a_leaf_itself() -> None:
    for leaf in (nnx.Param(jnp.ones(2)), jnp.ones(2)):
        graphdef, *states = nnx.split(leaf, nnx.BatchStat, nnx.Param, ...)
        merged = nnx.merge(graphdef, *states)
        assert type(merged) is type(leaf) and float(merged.sum()) == 2
        assert type(nnx.merge(*nnx.flatten(leaf))) is type(leaf)
    with pytest.raises(nnx.StructureError, match=r"which is the object itself: found no value"):
        nnx.merge(graphdef, nnx.State({}))
