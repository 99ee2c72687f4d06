"""Cases of laws 1, 2, 10 and 11: what the caller finds in the objects after a call."""

from __future__ import annotations

import collections
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.laws.attribute_values import AttrDict, Frozen, Locked
from tests.laws.cases import Box, Foreign, Pair, Run, case, param, stat, values_of
from tests.laws.transforms import FULL, TREE, VALUES

# -- 1: identity


@case(1, FULL, TREE, VALUES)
def returned_input(run: Run) -> None:
    model = Box(w=param(), child=Box(n=stat()))
    out = run(lambda m: {"model": m, "child": m.child, "variable": m.w})(model)
    assert out["model"] is model
    assert out["child"] is model.child
    assert out["variable"] is model.w


@case(1)
def swapped_inputs(run: Run) -> None:
    a, b = Box(w=param()), Box(w=param())
    assert run(lambda a, b: (b, a))(a, b) == (b, a)


@case(1, FULL, TREE, VALUES)
def shared_reference(run: Run) -> None:
    variable, child = param(), Box(n=stat())
    model = Box(a=variable, b=variable, left=child, right=[child])

    def body(m: Box) -> None:
        assert m.a is m.b
        assert m.left is m.right[0]
        m.b[...] = m.a[...] + 1.0
        m.left.n[...] = 5.0

    if not run.mode.graph:
        with pytest.raises(nnx.SharedReferenceError, match=r"m\.a and at m\.b: .*graph=True"):
            run(body)(model)
        return
    run(body)(model)
    assert model.a is variable
    assert model.b is variable
    assert model.left is child
    assert model.right[0] is child
    assert values_of(variable) == [2.0, 2.0]
    assert float(child.n) == 5.0


@case(1)
def shared_between_arguments(run: Run) -> None:
    shared = stat(1.0)
    a, b = Box(n=shared), Box(n=shared)

    def body(zero: Any, a: Box, b: Box) -> None:
        assert a.n is b.n
        b.n[...] = 3.0

    run(body)(jnp.zeros(()), a, b)
    assert a.n is b.n is shared
    assert float(shared) == 3.0


@case(1, FULL, TREE)
def cycle(run: Run) -> None:
    model = Box(w=param(), child=Box())
    model.child.parent = model
    model.me = [model]

    def body(m: Box) -> Any:
        assert m.child.parent is m
        m.child.parent.w[...] = m.w[...] * 2.0
        return m.child

    if not run.mode.graph:
        with pytest.raises(nnx.SharedReferenceError, match=r"m and at m\.child\.parent"):
            run(body)(model)
        return
    assert run(body)(model) is model.child
    assert model.child.parent is model
    assert model.me[0] is model
    assert values_of(model.w) == [2.0, 2.0]


# -- 2: writes come out


@case(2, FULL, TREE, VALUES)
def variable_written(run: Run) -> None:
    model = Box(n=stat(), w=param())

    def body(m: Box) -> None:
        m.n[...] = m.n[...] + m.w[...].sum()

    run(body)(model)
    run(body)(model)
    assert float(model.n) == 4.0


@case(2, FULL, TREE, VALUES)
def new_attribute(run: Run) -> None:
    model = Box(w=param())

    def body(m: Box) -> None:
        m.fresh = nnx.BatchStat(m.w[...].sum())
        m.child = Box(w=m.w, label="new")
        m.array = m.w[...] + 1.0
        m.name = "changed"

    if run.mode is TREE:

        def body(m: Box) -> None:
            m.fresh = nnx.BatchStat(m.w[...].sum())
            m.array = m.w[...] + 1.0
            m.name = "changed"

    run(body)(model)
    if not run.mode.graph_updates:
        assert vars(model).keys() == {"w"}
        return
    assert float(model.fresh) == 2.0
    assert values_of(model.array) == [2.0, 2.0]
    assert model.name == "changed"
    if run.mode is FULL:
        assert model.child.w is model.w
        assert model.child.label == "new"


@case(2, FULL, VALUES)
def new_objects_are_shared_as_inside(run: Run) -> None:
    model = Box()

    def body(m: Box) -> Any:
        m.a = Box(w=param())
        m.b = [m.a]
        return m.a

    out = run(body)(model)
    assert values_of(out.w) == [1.0, 1.0]
    if run.mode.graph_updates:
        assert model.a is model.b[0] is out


@case(2, FULL, VALUES)
def removed_attribute(run: Run) -> None:
    model = Box(w=param(), old=stat(), label="x")

    def body(m: Box) -> None:
        del m.old, m.label
        m.w[...] = m.w[...] + 1.0

    run(body)(model)
    expected = {"w"} if run.mode.graph_updates else {"w", "old", "label"}
    assert vars(model).keys() == expected
    assert values_of(model.w) == [2.0, 2.0]


@case(2)
def rebound_attribute(run: Run) -> None:
    model = Box(a=param(1.0), b=param(2.0), array=jnp.zeros(2), other=jnp.ones(2))
    a, b = model.a, model.b

    def body(m: Box) -> None:
        m.a, m.b = m.b, m.a
        m.array, m.other = m.other, m.array + 3.0

    run(body)(model)
    assert model.a is b
    assert model.b is a
    assert values_of(model.array) == [1.0, 1.0]
    assert values_of(model.other) == [3.0, 3.0]


@case(2, FULL, VALUES)
def static_change(run: Run) -> None:
    model = Box(w=param(), rate=0.5, config={"sizes": [1, 2]}, names={"a"})
    config, names = model.config, model.names

    def body(m: Box) -> None:
        m.rate = 0.25
        m.config["sizes"].append(3)
        m.config["depth"] = 4
        m.names.add("b")

    run(body)(model)
    assert model.config is config
    assert model.names is names
    if run.mode.graph_updates:
        assert model.rate == 0.25
        assert model.config == {"sizes": [1, 2, 3], "depth": 4}
        assert model.names == {"a", "b"}
    else:
        assert model.rate == 0.5
        assert model.config == {"sizes": [1, 2]}
        assert model.names == {"a"}


@case(2, FULL, VALUES)
def dtype_and_shape_change(run: Run) -> None:
    model = Box(n=stat(), w=param())

    def body(m: Box) -> None:
        m.n.value = m.n[...].astype(jnp.bfloat16)
        m.w.value = jnp.ones((3, 1))

    run(body)(model)
    assert model.n.dtype == jnp.bfloat16
    assert model.w.shape == (3, 1)


@case(2, FULL, VALUES)
def metadata_change(run: Run) -> None:
    model = Box(w=nnx.Param(jnp.ones(2), tag="old", keep=1))

    def body(m: Box) -> None:
        assert m.w.tag == "old"
        m.w.set_metadata(tag="new")
        m.w.del_metadata("keep")

    run(body)(model)
    assert model.w.get_metadata() == {"tag": "new"}


@case(2, FULL, VALUES)
def pytree_valued_variable(run: Run) -> None:
    held = nnx.BatchStat({"a": jnp.zeros(2), "b": (jnp.ones(()),)})
    model = Box(item=held, whole=held.copy(), inside=held.copy(), left=held.copy())

    def body(m: Box) -> None:
        m.item["a"] = m.item["a"] + 1.0
        m.whole.value = [jnp.ones(3)]
        m.inside.value["a"] = m.inside.value["a"] + 2.0

    run(body)(model)
    assert values_of(model.item["a"]) == [1.0, 1.0]
    assert [x.shape for x in model.whole.value] == [(3,)]
    assert values_of(model.inside["a"]) == [2.0, 2.0]
    assert values_of(model.left["a"]) == [0.0, 0.0]
    assert float(model.left["b"][0]) == 1.0


@case(2)
def attribute_marks(run: Run) -> None:
    model = Box(w=param(), rate=nnx.data(1.0))

    def body(m: Box) -> None:
        assert isinstance(m.rate, (jax.Array, float))
        m.rate = m.rate + 1.0
        m.table = nnx.static(np.arange(2))

    run(body)(model)
    assert float(model.rate) == 2.0
    assert nnx.to_flat_state(nnx.state(model)).paths == (("rate",), ("w",))


# -- 10: containers are containers


@case(10, FULL, TREE)
def plain_containers_hold_data(run: Run) -> None:
    model = Box(
        layers=[Box(w=param()), None, 3],
        named={"b": param(), "a": {"deep": (param(), "text")}},
        pair=Pair(param(), [jnp.zeros(2)]),
        foreign=Foreign([param()]),
    )
    expected = [
        ("foreign", "x", 0),
        ("layers", 0, "w"),
        ("named", "a", "deep", 0),
        ("named", "b"),
        ("pair", "left"),
        ("pair", "right", 0),
    ]
    assert list(nnx.to_flat_state(nnx.state(model)).paths) == expected
    kept = [model.layers, model.named, model.pair.right, model.foreign.x]

    def body(m: Box) -> None:
        assert list(m.named) == ["b", "a"]
        assert type(m.pair) is Pair
        m.layers[0].w[...] = m.layers[0].w[...] + 1.0
        m.pair.right[0] = m.pair.right[0] + 1.0
        m.foreign.x[0][...] = jnp.zeros(2)

    run(body)(model)
    assert [model.layers, model.named, model.pair.right, model.foreign.x] == kept
    assert all(
        a is b for a, b in zip([model.layers, model.named, model.pair.right], kept[:3], strict=True)
    )
    assert list(model.named) == ["b", "a"]
    assert values_of(model.layers[0].w) == [2.0, 2.0]
    assert values_of(model.pair.right[0]) == [1.0, 1.0]
    assert values_of(model.foreign.x[0]) == [0.0, 0.0]


@case(10, FULL, TREE)
def other_containers_hold_data(run: Run) -> None:
    model = Box(
        config=AttrDict(scale=2.0, w=param()),
        locked=Locked({"w": param()}, "why"),
        recent=collections.deque([param(), jnp.zeros(2)], 3),
        space=types.SimpleNamespace(n=1, w=param()),
        stats=Frozen(param()),
    )
    kept = dict(vars(model))

    def body(m: Box) -> None:
        assert m.config.scale == 2.0
        assert m.recent.maxlen == 3
        m.config.w[...] = m.config.w[...] + 1.0
        dict.__getitem__(m.locked, "w")[...] = m.config.w[...]
        m.recent[1] = m.recent[1] + m.space.w[...]
        m.recent[0][...] = m.stats.mean[...] * 3.0

    run(body)(model)
    assert all(value is kept[name] for name, value in vars(model).items())
    assert values_of(model.config.w) == [2.0, 2.0]
    assert values_of(dict.__getitem__(model.locked, "w")) == [2.0, 2.0]
    assert [values_of(x) for x in model.recent] == [[3.0, 3.0], [1.0, 1.0]]
    assert values_of(model.stats.mean) == [1.0, 1.0]


@case(10, FULL, VALUES)
def container_append_and_replace(run: Run) -> None:
    model = Box(
        items=[param()],
        listed=nnx.List([param()]),
        named={"a": param(), "gone": param()},
        dicted=nnx.Dict(a=param(), train=1),
        empty=[],
    )
    items, first, listed = model.items, model.items[0], model.listed

    def body(m: Box) -> None:
        m.items.append(param(5.0))
        m.listed.append(param(6.0))
        m.listed[0] = m.items[0]
        m.named["a"] = param(7.0)
        m.named["new"] = jnp.zeros(1)
        del m.named["gone"]
        m.dicted["b"] = param(8.0)
        m.dicted.a[...] = jnp.zeros(2)
        m.empty.append(m.items)

    run(body)(model)
    assert model.items is items
    assert model.listed is listed
    assert values_of(model.dicted.a) == [0.0, 0.0]
    if not run.mode.graph_updates:
        assert model.items == [first]
        assert model.empty == []
        assert list(model.named) == ["a", "gone"]
        return
    assert model.items[0] is first is listed[0]
    assert values_of(model.items[1]) == [5.0, 5.0]
    assert values_of(listed[1]) == [6.0, 6.0]
    assert list(model.named) == ["a", "new"]
    assert values_of(model.named["a"]) == [7.0, 7.0]
    assert list(model.dicted) == ["a", "train", "b"]
    assert model.empty[0] is items


@case(10)
def one_container_at_two_places(run: Run) -> None:
    shared: list[Any] = [param()]
    model = Box(a=shared, b={"c": shared})

    def body(m: Box) -> None:
        assert m.a is m.b["c"]
        m.a.append(1)

    run(body)(model)
    assert model.a is model.b["c"] is shared
    assert len(shared) == 2


@case(10)
def foreign_pytrees_changed_in_place(run: Run) -> None:
    model = Box(
        f=Foreign(jnp.zeros(2)), nested=Foreign(Foreign(jnp.zeros(2))), t=(Foreign(jnp.zeros(2)),)
    )

    def body(m: Box) -> None:
        m.f.x = m.f.x + 1.0
        m.nested.x.x = m.nested.x.x + 2.0
        m.t[0].x = m.t[0].x + 3.0
        m.t[0].label = "b"

    run(body)(model)
    assert values_of(model.f.x) == [1.0, 1.0]
    assert values_of(model.nested.x.x) == [2.0, 2.0]
    assert values_of(model.t[0].x) == [3.0, 3.0]
    assert model.t[0].label == "b"


@case(10)
def a_set_of_data_is_refused(run: Run) -> None:
    for bad in ({Box()}, frozenset({Box()}), [{Box()}]):
        with pytest.raises(nnx.StructureError, match=r"m\.bad.* is a set that holds .*list\("):
            run(lambda m: None)(Box(bad=bad))


# -- 11: bound methods


@case(11, FULL, TREE, VALUES)
def bound_method(run: Run) -> None:
    model = Box(w=param(2.0), calls=stat())
    transformed = run.transform.method(model.count, **run.mode.options())
    transformed(jnp.ones(2))
    transformed(jnp.ones(2))
    assert float(model.calls) == 2.0
    assert values_of(model.w) == [2.0, 2.0]
