"""`update`: what it takes, what it refuses, and that it writes all or nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.graph.graphs import Box, Foreign, Pair


def model() -> Box:
    return Box(
        w=nnx.Param(jnp.ones(2), tag="head"),
        layers=[Box(w=nnx.Param(jnp.zeros(1))), Box(n=nnx.BatchStat(jnp.ones(())))],
        tree=nnx.Cache({"k": jnp.zeros(1), "v": jnp.ones(1)}),
        raw=jnp.arange(2.0),
        rate=0.5,
    )


def test_update() -> None:
    obj, other = model(), model()
    held, tree = obj.w, obj.tree
    other.w.value = jnp.zeros(2)
    other.w.set_metadata(tag="other")
    other.raw = jnp.ones(2)
    other.tree["k"] = jnp.ones(1)
    nnx.update(obj, nnx.state(other))
    assert obj.w is held
    assert obj.w[...].tolist() == [0.0, 0.0]
    assert obj.w.tag == "other"
    assert obj.raw is other.raw
    assert obj.tree is tree
    assert obj.tree["k"].tolist() == [1.0]


def test_update_takes_many_forms() -> None:
    new = jnp.full(2, 3.0)
    forms: list[tuple[Any, ...]] = [
        ({"w": new},),
        (nnx.State({"w": nnx.Param(new)}),),
        (nnx.FlatState([(("w",), new)]),),
        ({"raw": jnp.zeros(2)}, {"w": new}),
        (Box(w=nnx.Param(new)),),
        ({"w": jnp.zeros(2)}, {"w": new}),
        ({"w": np.full(2, 3.0, np.float32)},),
    ]
    for states in forms:
        obj = model()
        nnx.update(obj, *states)
        assert obj.w[...].tolist() == [3.0, 3.0]
    obj, one = model(), jnp.full(1, 3.0)
    nnx.update(obj, {"tree": {"k": one, "v": one}, "layers": {1: {"n": nnx.BatchStat(7.0)}}})
    assert obj.tree["k"] is obj.tree["v"] is one
    assert type(obj.tree.value) is dict
    assert obj.layers[1].n.value == 7.0
    variable = nnx.Param(1.0)
    nnx.update(variable, nnx.Param(2.0))
    assert variable.value == 2.0
    nnx.update((variable, {"a": obj}), {0: 5.0, 1: {"a": {"w": new}}})
    assert variable.value == 5.0


def test_another_path_of_something_shared() -> None:
    shared, items = nnx.Param(1.0), [jnp.zeros(1)]
    obj = Box(a=shared, b=[shared], items=items, same=items)
    nnx.update(obj, {"b": {0: 2.0}})
    assert shared.value == 2.0
    nnx.update(obj, {"same": {0: jnp.ones(1)}})
    assert obj.items is obj.same is items
    assert items[0].tolist() == [1.0]


def test_other_dtypes_are_taken() -> None:
    obj = model()
    nnx.update(obj, {"w": jnp.zeros(2, jnp.bfloat16)})
    assert obj.w.dtype == jnp.bfloat16
    abstract = nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    nnx.update(abstract, nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    assert abstract.kernel.shape == (2, 3)
    with pytest.raises(
        nnx.StructureError, match=r"kernel: expected shape \(2, 3\), found \(3, 2\)"
    ):
        nnx.update(abstract, {"kernel": jnp.ones((3, 2))})


# -- arrays that no Variable holds


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """What flax.struct and the like make: a pytree with attributes, not with items."""

    encoder: Any
    scale: Any = None


def held_in_many_ways() -> Box:
    return Box(
        parts=Parts(Box(table=jnp.ones(2)), jnp.ones(1)),
        nested=[Parts(Parts(Box(w=nnx.Param(jnp.ones(1)), x=jnp.ones(1))), (jnp.ones(1), 3))],
        pair=Pair(jnp.ones(1), Box(x=jnp.ones(1))),
        items=({"a": [jnp.ones(1)]}, jnp.ones(1)),
        foreign=Foreign(jnp.ones(2), "label"),
        list=nnx.List([jnp.ones(1), nnx.Param(jnp.ones(1))]),
        dict=nnx.Dict(a=jnp.ones(1)),
    )


def values(obj: Any) -> set[float]:
    return {float(x.sum() / x.size) for x in jax.tree.leaves(nnx.state(obj))}


def test_a_model_takes_its_own_state_whatever_holds_the_arrays() -> None:
    obj = held_in_many_ways()
    before, inner, items = nnx.graphdef(obj), obj.parts.encoder, obj.items[0]["a"]
    nnx.update(obj, jax.tree.map(lambda x: x * 2.0, nnx.state(obj)))
    assert values(obj) == {2.0}
    assert nnx.graphdef(obj) == before
    assert obj.parts.encoder is inner
    assert obj.items[0]["a"] is items
    assert (type(obj.parts), type(obj.pair), obj.foreign.label) == (Parts, Pair, "label")
    assert obj.nested[0].scale[1] == 3
    nnx.jit(lambda m: nnx.update(m, jax.tree.map(lambda x: x * 2.0, nnx.state(m))))(obj)
    assert values(obj) == {4.0}


def test_one_array_inside_what_cannot_be_changed() -> None:
    obj = held_in_many_ways()
    kept = obj.parts.encoder, obj.items[0]
    nnx.update(obj, {"parts": {"scale": jnp.zeros(1)}, "items": {1: jnp.zeros(1)}})
    assert obj.parts.scale.tolist() == obj.items[1].tolist() == [0.0]
    assert (obj.parts.encoder, obj.items[0]) == kept
    root = (jnp.ones(1), Box(x=jnp.ones(1)))
    nnx.update(root, {1: {"x": jnp.zeros(1)}})
    assert root[1].x.tolist() == [0.0]
    with pytest.raises(nnx.StructureError, match=r"\[0\] is an array inside a tuple, .*a list"):
        nnx.update(root, {0: jnp.zeros(1), 1: {"x": jnp.ones(1)}})
    assert root[1].x.tolist() == [0.0]
    with pytest.raises(nnx.StructureError, match="it is an array, which cannot be changed in"):
        nnx.update(jnp.ones(1), jnp.zeros(1))


def test_containers_that_have_their_own_way_of_setting() -> None:
    class Counted(dict):
        def __setitem__(self, key: Any, value: Any) -> None:
            raise AssertionError

    class Careful(Box):
        def __setattr__(self, name: str, value: Any) -> None:
            assert name not in vars(self)
            super().__setattr__(name, value)

    obj = Careful(d=Counted(a=jnp.ones(1), n=3), x=jnp.ones(1))
    nnx.update(obj, {"d": {"a": jnp.zeros(1)}, "x": jnp.zeros(1)})
    assert obj.d["a"].tolist() == obj.x.tolist() == [0.0]
    assert (type(obj.d), obj.d["n"]) == (Counted, 3)


# -- what is refused


def test_all_or_nothing() -> None:
    obj = Box(w=nnx.Param(jnp.ones(1)), pair=(jnp.ones(1), nnx.Param(1.0)), layers=[Box()])
    zero = jnp.zeros(1)
    attempts: dict[str, Any] = {
        r"fit the Box to update, and nothing was written:\n  unexpected: x\nGive a": {"x": zero},
        r"\n  unexpected: layers\[0\]\.y\n  unexpected: w\.z\n": {
            "layers": {0: {"y": zero}},
            "w": {"z": zero},
        },
        r"unexpected: fresh": {"fresh": nnx.Param(1.0)},
        r"unexpected: layers\[0\]\.fresh": {"layers": {0: {"fresh": nnx.Param(1.0)}}},
        r"unexpected: layers\[5\]": {"layers": {5: nnx.Param(1.0)}},
        r"unexpected: no\.where": {"no": {"where": nnx.Intermediate(1.0)}},
        r"layers: expected what belongs into a list, found a Param": {"layers": nnx.Param(1.0)},
        r"w: expected shape \(1,\), found \(2,\)": {"w": jnp.zeros(2)},
        r"w: expected an array, found a list": {"w": [1.0]},
        r"pair\[0\]: expected shape \(1,\), found \(\)": {"pair": {0: 3.0}},
        r"expected a State or a nested dict, found a int": 3,
    }
    for found, change in attempts.items():
        for states in ((change,), ({"w": zero}, change), ({"pair": {0: zero}}, change)):
            with pytest.raises(nnx.StructureError, match=found):
                nnx.update(obj, *states)
            assert obj.w[...].tolist() == obj.pair[0].tolist() == [1.0]
            assert vars(obj).keys() == {"w", "pair", "layers"}
    with pytest.raises(nnx.StructureError, match=r"unexpected: \[19\]\n  and 5 more\n"):
        nnx.update(obj, dict.fromkeys(range(25), zero))
    nnx.update(obj, {"pair": {1: 5.0}})
    assert obj.pair[1].value == 5.0


def test_values_that_are_trees() -> None:
    obj = Box(
        tree=nnx.Cache({"k": jnp.zeros(1)}), none=nnx.Cache(None), seen=nnx.Intermediate((1.0,))
    )
    with pytest.raises(nnx.StructureError, match=r"tree: expected shapes \[\(1,\)\], found \[\(2,"):
        nnx.update(obj, {"tree": {"k": jnp.zeros(2)}})
    with pytest.raises(nnx.StructureError, match=r"tree: expected a value of structure PyTreeDef"):
        nnx.update(obj, {"tree": {"v": jnp.zeros(1)}})
    nnx.update(obj, {"none": jnp.ones(1), "seen": nnx.Intermediate((1.0, 2.0))})
    assert obj.none[...].tolist() == [1.0]
    assert obj.seen.value == (1.0, 2.0)


def test_what_a_forward_pass_sows_may_be_new() -> None:
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(layer)
    twin = nnx.merge(graphdef, state)
    twin.sow(nnx.Intermediate, "seen", jnp.ones(1))
    nnx.update(layer, nnx.state(twin))
    assert layer.seen is not twin.seen
    assert layer.seen.value == twin.seen.value


def test_a_captured_model() -> None:
    obj, zeros = model(), jnp.zeros(2)
    for change in ({"w": zeros}, {"raw": zeros}, {"raw": zeros, "w": zeros}):
        with pytest.raises(nnx.TraceContextError):
            jax.jit(lambda x, change=change: nnx.update(obj, change))(1.0)
    assert obj.w[...].tolist() == [1.0, 1.0]
    assert obj.raw.tolist() == [0.0, 1.0]


def test_a_pytree_that_cannot_be_made_anew() -> None:
    @jax.tree_util.register_pytree_node_class
    class Fussy(Foreign):
        @classmethod
        def tree_unflatten(cls, label: Any, children: Any) -> Any:
            raise ValueError("fussy")

        tree_flatten = Foreign.tree_flatten

    obj = Box(w=nnx.Param(jnp.ones(1)), f=Fussy(jnp.ones(1)))
    with pytest.raises(ValueError, match="fussy"):
        nnx.update(obj, {"w": jnp.zeros(1), "f": {0: jnp.zeros(1)}})
    assert obj.w[...].tolist() == [1.0]


def test_an_object_that_is_a_leaf_itself() -> None:
    variable = nnx.Param(jnp.ones(2))
    _, stats, params, rest = nnx.split(variable, nnx.BatchStat, nnx.Param, ...)
    params = nnx.Param(jnp.zeros(2))
    nnx.update(variable, stats, params, rest)
    assert float(variable.sum()) == 0
    nnx.update(variable, nnx.State({}))
    nnx.update(variable, nnx.to_flat_state(nnx.state(nnx.Param(jnp.ones(2)))))
    assert float(variable.sum()) == 2
