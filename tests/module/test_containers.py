"""`List`, `Dict` and `Sequential` behave like what they are named after."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft as nnx


def roundtrips(obj: Any) -> list[Any]:
    return [nnx.merge(*nnx.split(obj)), nnx.clone(obj), jax.tree.map(lambda x: x, obj)]


# -- List


INDEX = st.integers(-6, 6)
LIST_STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers()),
    st.tuples(st.just("insert"), INDEX, st.integers()),
    st.tuples(st.just("__setitem__"), INDEX, st.integers()),
    st.tuples(st.just("__setitem__"), st.slices(5), st.lists(st.integers(), max_size=3)),
    st.tuples(st.just("__delitem__"), INDEX | st.slices(5)),
    st.tuples(st.just("pop"), INDEX),
    st.tuples(st.just("remove"), st.integers(0, 3)),
    st.tuples(st.just("extend"), st.lists(st.integers(), max_size=3)),
    st.tuples(st.just("__iadd__"), st.lists(st.integers(), max_size=3)),
    st.tuples(st.just("reverse")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("index"), st.integers(0, 3)),
    st.tuples(st.just("count"), st.integers(0, 3)),
    st.tuples(st.just("__getitem__"), INDEX | st.slices(5)),
    st.tuples(st.just("__contains__"), st.integers(0, 3)),
)


def outcome(obj: Any, name: str, *arguments: Any) -> Any:
    try:
        found = getattr(obj, name)(*arguments)
    except (IndexError, KeyError, ValueError) as error:
        return type(error)
    return None if found is obj else found


@given(st.lists(st.integers(0, 3), max_size=5), st.lists(LIST_STEPS, max_size=8))
def test_a_list_behaves_like_a_list(start: list[int], steps: list[Any]) -> None:
    expected, found = list(start), nnx.List(start)
    for name, *arguments in steps:
        assert outcome(found, name, *arguments) == outcome(expected, name, *arguments)
        assert list(found) == expected
        assert len(found) == len(expected)


def test_keys_of_a_list_are_ints() -> None:
    layers = nnx.List([nnx.Linear(1, 1, rngs=nnx.Rngs(0)) for _ in range(11)])
    paths = nnx.to_flat_state(nnx.state(layers)).paths
    assert [path[0] for path in paths[::2]] == list(range(11))
    leaves = jax.tree_util.tree_leaves_with_path(layers)
    assert jax.tree_util.keystr(leaves[-1][0]) == "[10].kernel.value"


def test_a_list_with_attributes_and_marks() -> None:
    items = nnx.List([nnx.data(1.0), 2.0, nnx.static(jnp.ones(1)), nnx.Param(3.0)])
    items.label = "x"
    items.weight = nnx.Param(4.0)
    assert items[0] == 1.0
    expected = ((0,), (3,), ("weight",))
    for new in [items, *roundtrips(items)]:
        assert nnx.to_flat_state(nnx.state(new)).paths == expected
        assert new.label == "x"
        assert len(new) == 4
    items.insert(0, 0.0)
    assert nnx.to_flat_state(nnx.state(items)).paths == ((1,), (4,), ("weight",))
    items[1] = 5.0  # the mark is the place's
    assert nnx.state(items)[1] == 5.0
    del items[1]
    assert nnx.to_flat_state(nnx.state(items)).paths == ((3,), ("weight",))
    items[0:2] = [nnx.data(7.0)]
    assert nnx.to_flat_state(nnx.state(items)).paths == ((0,), (2,), ("weight",))


def test_a_list_has_identity() -> None:
    a, b = nnx.List([1]), nnx.List([1])
    assert a == a
    assert a != b
    assert len({a, b}) == 2


def test_a_list_in_place_of_an_attribute_list() -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.layers = nnx.List()
            self.layers += [nnx.Param(1.0)]
            self.layers.append(nnx.Param(2.0))

    model = Model()
    assert [path for path, _ in nnx.to_flat_state(nnx.state(model))] == [
        ("layers", 0),
        ("layers", 1),
    ]


# -- Dict


NAMES = st.sampled_from(["a", "b", "items", "train", 0, 1])
DICT_STEPS = st.one_of(
    st.tuples(st.just("__setitem__"), NAMES, st.integers()),
    st.tuples(st.just("__delitem__"), NAMES),
    st.tuples(st.just("__getitem__"), NAMES),
    st.tuples(st.just("__contains__"), NAMES),
    st.tuples(st.just("get"), NAMES, st.integers()),
    st.tuples(st.just("pop"), NAMES),
    st.tuples(st.just("setdefault"), NAMES, st.integers()),
    st.tuples(st.just("update"), st.dictionaries(NAMES, st.integers(), max_size=3)),
    st.tuples(st.just("clear")),
)


@given(st.dictionaries(NAMES, st.integers(), max_size=4), st.lists(DICT_STEPS, max_size=8))
def test_a_dict_behaves_like_a_dict(start: dict, steps: list[Any]) -> None:
    expected, found = dict(start), nnx.Dict(start)
    for name, *arguments in steps:
        assert outcome(found, name, *arguments) == outcome(expected, name, *arguments)
    for new in [found, *roundtrips(found)]:
        assert list(new.items()) == list(expected.items())
        assert list(new) == list(expected)
        assert list(new.values()) == list(expected.values())


def test_keys_are_attributes() -> None:
    heads = nnx.Dict({"a": 1}, b=nnx.Param(2.0))
    assert (heads.a, heads.b.value) == (1, 2.0)
    heads.c = 3
    assert heads["c"] == 3
    del heads.a
    assert list(heads) == ["b", "c"]
    assert not hasattr(heads, "a")
    with pytest.raises(AttributeError, match="Dict has no attribute or key 'a'"):
        _ = heads.a
    with pytest.raises(AttributeError, match="Dict has no key 'a'"):
        del heads.a
    with pytest.raises(KeyError):
        _ = heads["a"]


def test_a_key_named_like_a_method() -> None:
    metrics = nnx.Dict(train=nnx.Param(1.0), items=2)
    assert metrics["train"].value == 1.0
    metrics.train()
    assert list(metrics.items())[1] == ("items", 2)
    assert nnx.to_flat_state(nnx.state(metrics)).paths == (("train",),)


def test_marks_in_a_dict() -> None:
    items = nnx.Dict(a=nnx.data(1.0), b=2.0)
    items[0] = nnx.data(3.0)
    assert nnx.to_flat_state(nnx.state(items)).paths == ((0,), ("a",))
    del items["a"]
    items.a = 1.0
    assert nnx.to_flat_state(nnx.state(items)).paths == ((0,),)


def test_a_dict_has_identity() -> None:
    a, b = nnx.Dict(x=1), nnx.Dict(x=1)
    assert a == a
    assert a != b
    assert hash(a) != hash(b) or a is b


def test_changing_captured_containers() -> None:
    items, named = nnx.List([1]), nnx.Dict(a=1)
    for where, change in {
        r"List\[0\]": lambda: items.__setitem__(0, 2),
        r"List\[-1\]": lambda: items.__delitem__(-1),
        r"List\[1\]": lambda: items.append(2),
        r"Dict\.a": lambda: named.__setitem__("a", 2),
        r"Dict\.b": lambda: setattr(named, "b", 2),
        r"Dict\[0\]": lambda: named.__setitem__(0, 2),
        r"Dict\.a ": lambda: named.__delitem__("a"),
    }.items():
        with pytest.raises(nnx.TraceContextError, match=f"cannot change {where}"):
            jax.jit(lambda x, change=change: change())(1.0)
    assert (list(items), dict(named)) == ([1], {"a": 1})


# -- Sequential


def test_sequential() -> None:
    rngs = nnx.Rngs(0)
    layers = [nnx.Linear(2, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 1, rngs=rngs)]
    x = jnp.ones((3, 2))
    expected = layers[2](nnx.relu(layers[0](x)))
    for model in (nnx.Sequential(*layers), nnx.Sequential(layers), nnx.Sequential(tuple(layers))):
        assert (model(x) == expected).all()
        assert (nnx.jit(model)(x) == nnx.jit(lambda m, x: m(x))(model, x)).all()
    assert nnx.Sequential(lambda x: x)(1) == 1


def test_sequential_spreads_tuples_and_dicts() -> None:
    model = nnx.Sequential(
        lambda x: (x, 2), lambda x, y: {"a": x + y, "b": 1}, lambda a, b=0: (a, b)
    )
    assert model(1) == (3, 1)
    assert nnx.Sequential(lambda x, *, scale: x * scale)(2, scale=3) == 6


def test_sequential_hands_rngs_to_those_that_take_it() -> None:
    seen = []

    def takes(x: Any, rngs: Any) -> Any:
        seen.append(rngs)
        return x

    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), takes, nnx.Dropout(0.5), jnp.sin, print)
    model.layers.pop()
    assert model(jnp.ones((1, 2)), rngs=rngs).shape == (1, 2)
    assert seen == [rngs]


def test_sequential_errors() -> None:
    with pytest.raises(TypeError, match=r"expects callables, found int at position 1: `nnx\.Seq"):
        nnx.Sequential(nnx.relu, 3)
    with pytest.raises(ValueError, match="an empty Sequential cannot be called: give it at least"):
        nnx.Sequential()(1)
