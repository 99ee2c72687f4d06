"""What may be an attribute, as a table: every value × everything that is done to a model."""

from __future__ import annotations

import copy
import functools
import pickle
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.laws.attribute_values import (
    ROWS,
    Act,
    Plain,
    Row,
    Slotted,
    Stats,
    TwiceDict,
    contents,
    param,
)
from weft._graph.walk import items_of
from weft._object.pytree import attributes


class Net(nnx.Module):
    def __init__(self, x: Any):
        self.x = x
        self.w = nnx.Param(jnp.ones(2))


def held(model: Any) -> Any:
    return attributes(model)["x"]


@pytest.fixture(params=ROWS.values(), ids=ROWS)
def row(request: Any) -> Row:
    return request.param


def check_copy(row: Row, model: Net, twin: Net) -> None:
    """Checks that a copy has the same, and its own where that may change."""
    assert contents(held(twin)) == contents(held(model))
    if not isinstance(held(model), (float, np.ndarray)):
        assert (held(twin) is not held(model)) == row.is_copied
    assert nnx.graphdef(twin) == nnx.graphdef(model)
    if row.change is not None:
        before = contents(held(model))
        row.change(held(twin))
        assert contents(held(twin)) != before
        assert contents(held(model)) == before


def test_walk(row: Row) -> None:
    model = Net(row.make())
    assert len(jax.tree.leaves(nnx.state(model))) == row.leaves + 1
    assert len(jax.tree.leaves(nnx.split(model)[1])) == row.leaves + 1
    assert nnx.is_data(held(model)) == (row.leaves > 0) or isinstance(held(model), float)


def test_merge(row: Row) -> None:
    model = Net(row.make())
    before = contents(held(model))
    check_copy(row, model, nnx.merge(*nnx.split(model)))
    assert contents(held(model)) == before


def test_clone(row: Row) -> None:
    model = Net(row.make())
    check_copy(row, model, nnx.clone(model))


@pytest.mark.parametrize("graph", [True, False])
def test_jit_gives_the_same_object_back(row: Row, graph: bool) -> None:
    model = Net(row.make())
    value, before = held(model), contents(held(model))
    f = nnx.jit(lambda m: (m, m.w * 2), graph=graph)
    if type(value) is TwiceDict and row.leaves and not graph:
        with pytest.raises(nnx.SharedReferenceError, match=r"m\.x\.w and at m\.x\.w"):
            f(model)
        return
    for _ in range(3):
        assert f(model)[0] is model
        assert held(model) is value
        assert contents(value) == before
    assert f.cache_info().traces == 1
    f(nnx.clone(model))
    assert f.cache_info().traces == 1


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.change is not None])
def test_changes_inside_a_transform_come_out(name: str) -> None:
    row = ROWS[name]
    model, expected = Net(row.make()), row.make()
    value = held(model)
    row.change(expected)  # type: ignore[misc]

    def step(m: Net) -> Any:
        row.change(m.x)  # type: ignore[misc]
        return m.w * 2

    nnx.jit(step)(model)
    assert held(model) is value
    assert contents(value) == contents(expected)
    other = Net(row.make())
    nnx.grad(lambda m: step(m).sum())(other)
    assert contents(held(other)) == contents(expected)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.change is not None])
def test_changes_outside_are_noticed(name: str) -> None:
    row = ROWS[name]
    model, expected = Net(row.make()), Net(row.make())
    f = nnx.jit(lambda m: m.w * 2)
    for _ in range(3):
        f(model)
        nnx.split(model)
    before = nnx.graphdef(model)
    row.change(held(model))  # type: ignore[misc]
    row.change(held(expected))  # type: ignore[misc]
    (graphdef, state), (_, wanted) = nnx.split(model), nnx.split(expected)
    assert graphdef == nnx.graphdef(expected)
    assert contents(nnx.to_pure_dict(state)) == contents(nnx.to_pure_dict(wanted))
    f(model)
    assert f.cache_info().traces == (1 if graphdef == before else 2)


def test_jax_tree_map(row: Row) -> None:
    model = Net(row.make())
    leaves, treedef = jax.tree.flatten(model)
    occurs_twice = type(held(model)) is TwiceDict and row.leaves > 0
    assert len(leaves) == row.leaves + 1 + occurs_twice
    twin = jax.tree.map(lambda x: x, model)
    if type(held(model)) is dict and row.leaves:
        for key in sorted(held(model)):  # JAX sorts the keys of a dict
            held(model)[key] = held(model).pop(key)
    if occurs_twice:
        assert held(twin)["w"] is not held(twin).w  # JAX knows no shared references
    else:
        assert contents(held(twin)) == contents(held(model))
    assert jax.tree.structure(twin) == treedef
    doubled = jax.tree.map(lambda x: x * 2, model)
    assert float(doubled.w[0]) == 2.0
    back = jax.tree.map(lambda x: x / 2, doubled)
    assert jax.tree.structure(back) == treedef
    assert float(jax.jit(lambda m: m.w.sum())(model)) == 2.0
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(model)]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    "through",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
def test_deep_copies(row: Row, through: Any, request: Any) -> None:
    model = Net(row.make())
    try:
        expected = through(row.make())
    except Exception as error:  # such a value has no copies, nor has a model that holds it
        with pytest.raises(type(error)):
            through(model)
        return
    assert contents(held(through(model))) == contents(held(Net(expected)))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.leaves])
def test_pop_and_update(name: str) -> None:
    model = Net(ROWS[name].make())
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda x: x * 3.0, state))
    assert float(model.w[0]) == 3.0
    doubled = nnx.map(lambda path, x: x.copy(x[...] * 2) if isinstance(x, nnx.Param) else x, model)
    assert [float(x[0]) for x in jax.tree.leaves(nnx.state(doubled, nnx.Param))] == [
        float(x[0]) * 2 for x in jax.tree.leaves(nnx.state(model, nnx.Param))
    ]
    if isinstance(held(model), (tuple, types.MappingProxyType)) and len(state) > 1:
        with pytest.raises(nnx.StructureError, match=r"Net\.x.* cannot lose it"):
            nnx.pop(model, nnx.Param)
        return
    popped = nnx.pop(model, nnx.Param)
    assert len(jax.tree.leaves(popped)) == len(jax.tree.leaves(state))
    assert not jax.tree.leaves(nnx.state(model, nnx.Param))


def test_an_instance_that_gains_and_loses_data() -> None:
    model = Net(Stats(1))

    def gain(m: Net) -> None:
        m.x.mean = m.w * 2

    def lose(m: Net) -> None:
        m.x.mean = 3

    nnx.jit(gain)(model)
    assert (type(model.x), model.x.mean.tolist()) == (Stats, [2.0, 2.0])
    value = model.x
    nnx.jit(lose)(model)
    assert model.x is value
    assert contents(value) == contents(Stats(3))


# -- what cannot be looked into, and holds data


def hidden_objects() -> Any:
    found = np.empty(2, dtype=object)
    found[0] = nnx.Param(1.0)
    return found


HIDDEN: dict[str, tuple[Any, str]] = {
    "object": (lambda: Plain(w=param()), r"Net\.x is a Plain that holds a Param, at `Plain\.w`"),
    "deep in an object": (
        lambda: Plain(a=Plain(b=[{"k": nnx.List([])}])),
        r"Net\.x is a Plain that holds a List, at `Plain\.a\.b\[0\]\.k`",
    ),
    "object in a list": (lambda: [1, Plain(w=param())], r"Net\.x\[1\] is a Plain that holds"),
    "object in a tuple": (lambda: ((Plain(w=param()),),), r"Net\.x\[0\]\[0\] is a Plain that"),
    "object in a dataclass": (lambda: Stats(Plain(w=param())), r"Net\.x\.mean is a Plain that"),
    "object in slots": (lambda: Slotted(Plain(w=param())), r"Net\.x\.mean is a Plain that holds"),
    "object marked as data": (lambda: nnx.data(Plain(w=param())), r"Net\.x is a Plain that holds"),
    "arrays marked as data": (
        lambda: nnx.data(Plain(w=jnp.ones(2))),
        r"Net\.x is a Plain that holds an array, at `Plain\.w`: .* `Net\.x = nnx\.static",
    ),
    "array of objects": (
        hidden_objects,
        r"Net\.x is an array of objects that holds a Param: .*: `Net\.x = list\(",
    ),
    "view of a dict": (
        lambda: {"k": param()}.values(),
        r"Net\.x is a dict_values that holds a Param: .*: `Net\.x = list\(",
    ),
    "view in a list": (
        lambda: [{"k": nnx.List([])}.items()],
        r"Net\.x\[0\] is a dict_items that holds a List: .*: `Net\.x\[0\] = list\(",
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_data(name: str) -> None:
    make, found = HIDDEN[name]
    uses = {
        "split": nnx.split,
        "state": nnx.state,
        "clone": nnx.clone,
        "jit": nnx.jit(lambda m: m.w * 2),
        "jax": jax.tree.leaves,
    }
    for use in uses.values():
        with pytest.raises(nnx.StructureError, match=found.replace("Net", "(Net|m)")):
            use(Net(make()))
    assert repr(Net(make())).startswith("Net(")
    model = Net(nnx.static(make().value if name.endswith("marked as data") else make()))
    assert len(jax.tree.leaves(nnx.state(model))) == 1
    assert float(nnx.jit(lambda m: m.w.sum())(model)) == 2.0


def test_a_message_says_what_to_do() -> None:
    with pytest.raises(nnx.StructureError) as caught:
        nnx.state(Net(Plain(w=param())))
    assert str(caught.value) == (
        "Net.x is a Plain that holds a Param, at `Plain.w`: transforms, `nnx.state` and "
        "checkpoints would not see it, as neither Weft nor JAX knows what a Plain consists of. "
        "Make it a Module, `class Plain(nnx.Module)`, or a dataclass, or register it with "
        "`jax.tree_util`; if it is no part of the model, write `Net.x = nnx.static(...)`"
    )


def test_a_large_object_is_not_looked_through() -> None:
    looked = []

    class Counting(list):
        def __iter__(self) -> Any:
            looked.append(1)
            return super().__iter__()

    model = Net(Plain(samples=[*range(10**5)], more=[Plain(k=i) for i in range(10**4)]))
    assert len(jax.tree.leaves(nnx.state(model))) == 1
    assert not looked


# -- methods and partials


class Bound(nnx.Module):
    """Has methods of itself, of parts that come before and after, and of nobody in it."""

    def __init__(self, other: Any = None):
        self.apply = self.scale
        self.before = Leaf()
        self.between = [self.before.double, functools.partial(self.zlast_apply, times=2)]
        self.early = self.before.double
        if other is not None:
            self.foreign = other.double
        self.zlast = Leaf()
        self.late = {"f": functools.partial(Leaf.double, self.zlast)}
        self.across = self.zlast.double  # by name before the part itself

    def zlast_apply(self, x: Any, times: int) -> Any:
        return x * self.zlast.w * times

    def scale(self, x: Any) -> Any:
        return x * self.before.w


class Leaf(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.array(3.0))

    def double(self, x: Any) -> Any:
        return x * self.w * 2


def targets_of(model: Bound) -> list[Any]:
    return [
        model.apply.__self__,  # type: ignore[attr-defined]
        model.between[0].__self__,
        model.between[1].func.__self__,
        model.early.__self__,  # type: ignore[attr-defined]
        model.late["f"].args[0],
        model.across.__self__,  # type: ignore[attr-defined]
    ]


def expected_of(model: Bound) -> list[Any]:
    first, last = model.before, model.zlast
    return [model, first, model, first, last, last]


def same_targets(model: Bound) -> bool:
    return all(a is b for a, b in zip(targets_of(model), expected_of(model), strict=True))


def test_methods_belong_to_the_copy_they_are_in() -> None:
    other = Leaf()
    model = Bound(other)
    assert len(jax.tree.leaves(nnx.state(model))) == 2
    for twin in (nnx.merge(*nnx.split(model)), nnx.clone(model), nnx.clone(nnx.clone(model))):
        assert same_targets(twin)
        assert twin.foreign.__self__ is other
        assert twin.late["f"].func is Leaf.double
        assert twin.between[1].keywords == {"times": 2}
        assert nnx.graphdef(twin) == nnx.graphdef(model)
    assert same_targets(copy.deepcopy(model))


@pytest.mark.parametrize("graph", [True, False])
def test_methods_inside_transforms(graph: bool) -> None:
    model = Bound()

    def loss(m: Bound) -> Any:
        assert same_targets(m)
        return (m.apply(1.0) + m.early(1.0) + m.across(1.0) + m.late["f"](1.0))[...]

    for f in (loss, nnx.jit(loss, graph=graph)):
        grads = nnx.grad(f, graph=graph)(model)
        assert float(grads.before.w[...]) == 3.0
        assert float(grads.zlast.w[...]) == 4.0
    assert same_targets(model)

    def swap(m: Bound) -> None:
        m.early = m.zlast.double
        m.new = m.scale

    nnx.jit(swap)(model)
    assert model.early.__self__ is model.zlast
    assert model.new.__self__ is model  # type: ignore[attr-defined]


def test_methods_across_arguments() -> None:
    model, holder = Leaf(), Net(None)
    holder.x = model.double

    def look(a: Any, b: Any) -> Any:
        pair = (a, b) if isinstance(a, Leaf) else (b, a)
        assert pair[1].x.__self__ is pair[0]
        return pair[1].x(1.0)

    for args in ((model, holder), (holder, model)):
        assert float(nnx.jit(look)(*args)) == 6.0
        grads = nnx.grad(lambda *args: look(*args)[...], argnums=(0, 1))(*args)
        assert float(grads[args.index(model)]["w"][...]) == 2.0
    assert len(jax.tree.leaves(nnx.state(holder))) == 1
    assert holder.x.__self__ is model


def test_jax_sees_methods_of_the_object_itself() -> None:
    model = Bound()
    twin = jax.tree.map(lambda x: x * 2, model)
    assert twin.apply.__self__ is twin
    assert float(jax.grad(lambda m: m.apply(1.0)[...])(model).before.w[...]) == 1.0
    assert jax.tree.structure(twin) == jax.tree.structure(model)


def test_an_optimizer_that_selects_by_a_method_of_the_model() -> None:
    import optax

    class Selecting(nnx.Module):
        def __init__(self) -> None:
            self.lora, self.w = nnx.Param(jnp.ones(2)), nnx.Param(jnp.ones(2))

        def is_lora(self, path: Any, value: Any) -> bool:
            return "lora" in path

    model = Selecting()
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=model.is_lora)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        grads = nnx.grad(lambda m: (m.lora * m.w).sum(), argnums=nnx.DiffState(0, model.is_lora))
        optimizer.update(model, grads(model))

    for _ in range(2):
        step(model, optimizer)
    assert step.cache_info().traces == 1
    assert float(model.lora[0]) < 1.0 == float(model.w[0])
    assert not any("wrt" in path for path in nnx.to_flat_state(nnx.state(optimizer)).paths)


def test_callables_are_static() -> None:
    holder = nnx.Module()
    holder.f = Act(param())
    holder.g = functools.partial(Act(param()), 1.0)
    assert not jax.tree.leaves(nnx.state(holder))
    assert nnx.clone(holder).f is holder.f
    assert items_of(holder)[0] == ("f", holder.f)
