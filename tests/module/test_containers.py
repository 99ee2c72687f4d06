"""`List`, `Dict` and `Sequential` behave like what they are named after."""

from __future__ import annotations

import copy
import functools
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
    st.tuples(st.just("__imul__"), st.integers(-1, 3)),
    st.tuples(st.just("__add__"), st.lists(st.integers(), max_size=3)),
    st.tuples(st.sampled_from(["__mul__", "__rmul__"]), st.integers(-1, 3)),
    st.tuples(st.just("sort")),
    st.tuples(st.just("copy")),
    st.tuples(st.just("__len__")),
    st.tuples(st.just("__reversed__")),
    st.tuples(st.just("index"), st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)),
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
    if found is obj:
        return None
    if isinstance(found, nnx.List) or hasattr(found, "__next__"):
        return list(found)
    return dict(found) if isinstance(found, nnx.Dict) else found


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


# They have the identity of a Module, and so no order. The rest is of all objects.
ELSEWHERE = {"__eq__", "__ge__", "__gt__", "__hash__", "__le__", "__lt__", "__ne__"}
ELSEWHERE |= {"__doc__", "__getattribute__", "__sizeof__"}


@pytest.mark.parametrize(("peer", "kind"), [(list, nnx.List), (dict, nnx.Dict)])
def test_every_method_is_there(peer: type, kind: type) -> None:
    assert all(callable(getattr(kind, name, None)) for name in dir(peer) if name != "__doc__")
    for name in set(vars(peer)) - ELSEWHERE:
        assert getattr(kind, name) is not getattr(object, name, None), name


PLAIN: list[Any] = [3.0]


def test_lists_are_joined_and_repeated() -> None:
    a, b = nnx.List([nnx.data(1.0), 2.0]), nnx.List([nnx.static(jnp.ones(1))])
    a.label = "x"
    for joined, expected in (
        (a + b, [1.0, 2.0, b[0]]),
        (a + PLAIN, [1.0, 2.0, 3.0]),
        (PLAIN + a, [3.0, 1.0, 2.0]),
        (2 * a, [1.0, 2.0, 1.0, 2.0]),
    ):
        assert type(joined) is nnx.List
        assert list(joined) == expected
    assert nnx.to_flat_state(nnx.state(a + b)).paths == ((0,),)
    assert nnx.to_flat_state(nnx.state(PLAIN + a)).paths == ((1,),)
    assert nnx.to_flat_state(nnx.state(a * 2)).paths == ((0,), (2,))
    twin = a.copy()
    assert (type(twin), list(twin), twin.label) == (nnx.List, [1.0, 2.0], "x")
    twin.append(3.0)
    a *= 2
    a += b
    assert list(a) == [1.0, 2.0, 1.0, 2.0, b[0]]
    assert list(twin) == [1.0, 2.0, 3.0]
    for wrong in (lambda: a + tuple(PLAIN), lambda: tuple(PLAIN) + a, lambda: a * 1.5):
        with pytest.raises(TypeError):
            wrong()


def test_lists_are_sorted_with_their_marks() -> None:
    items = nnx.List([3.0, nnx.data(1.0), 2.0])
    items.sort()
    assert list(items) == [1.0, 2.0, 3.0]
    assert nnx.to_flat_state(nnx.state(items)).paths == ((0,),)
    items.sort(key=lambda x: -x)
    assert list(items) == [3.0, 2.0, 1.0]
    items.reverse()
    assert list(items) == [1.0, 2.0, 3.0]
    assert nnx.to_flat_state(nnx.state(items)).paths == ((0,),)
    items.sort(reverse=True)
    assert nnx.to_flat_state(nnx.state(items)).paths == ((2,),)


class Blocks(nnx.List):
    """A List with attributes, and arguments of its own."""

    def __init__(self, number: int):
        super().__init__([nnx.Param(float(i)) for i in range(number)])
        self.scale = nnx.Param(9.0)
        self.label = "blocks"


class Heads(nnx.Dict):
    """A Dict with an attribute set past `__setattr__`."""

    def __init__(self, label: Any, /, **heads: Any):
        super().__init__(**heads)
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "other", [1])


def test_subclasses_keep_their_attributes() -> None:
    blocks, heads = Blocks(2), Heads("x", b=nnx.Param(1.0), a=2, label=3)
    for new in [blocks, *roundtrips(blocks), copy.deepcopy(blocks), blocks.copy()]:
        assert (type(new), len(new), new.label) == (Blocks, 2, "blocks")
        assert new.scale.value == 9.0
    for new in [heads, *roundtrips(heads), copy.deepcopy(heads), heads.copy()]:
        assert (type(new), list(new)) == (Heads, ["b", "a", "label"])
        assert (new.label, new["label"], new.other) == ("x", 3, [1])
    assert type(blocks + PLAIN) is nnx.List
    deep = Heads(nnx.Param(5.0))
    assert len(jax.tree.leaves(nnx.state(deep))) == len(jax.tree.leaves(deep)) == 1
    nnx.jit(lambda m: m.label.set_value(6.0))(deep)
    assert float(deep.label.value) == 6.0


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
    st.tuples(st.just("__ior__"), st.dictionaries(NAMES, st.integers(), max_size=3)),
    st.tuples(st.just("__or__"), st.dictionaries(NAMES, st.integers(), max_size=3)),
    st.tuples(st.just("__ror__"), st.dictionaries(NAMES, st.integers(), max_size=3)),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("copy")),
    st.tuples(st.just("__len__")),
    st.tuples(st.just("__reversed__")),
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


def test_dicts_are_joined() -> None:
    a, b = nnx.Dict(x=nnx.data(1.0), y=2), nnx.Dict(y=nnx.data(3.0))
    for joined, expected in (
        (a | b, {"x": 1.0, "y": 3.0}),
        (a | {"z": 1}, {"x": 1.0, "y": 2, "z": 1}),
        ({"z": 1} | a, {"z": 1, "x": 1.0, "y": 2}),
    ):
        assert type(joined) is nnx.Dict
        assert list(joined.items()) == list(expected.items())
    assert nnx.to_flat_state(nnx.state(a | b)).paths == (("x",), ("y",))
    assert nnx.to_flat_state(nnx.state(a)).paths == (("x",),)
    a |= [("z", 5)]
    a.update(b, w=6)
    assert dict(a) == {"x": 1.0, "y": 3.0, "z": 5, "w": 6}
    twin = a.copy()
    assert twin.popitem() == ("w", 6)
    assert "w" in a
    assert type(nnx.Dict.fromkeys("ab", 1)) is nnx.Dict
    assert dict(nnx.Dict.fromkeys("ab")) == {"a": None, "b": None}
    assert dict(nnx.Dict(self=1, args=2)) == {"self": 1, "args": 2}
    assert nnx.Dict({None: 1}).popitem() == (None, 1)
    for wrong in (lambda: a | 1, lambda: 1 | a, lambda: nnx.Dict(1), lambda: nnx.Dict({}, {})):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(KeyError, match=r"popitem\(\): the Dict is empty"):
        nnx.Dict().popitem()


def test_views_of_a_dict() -> None:
    heads = nnx.Dict(b=1, a=2)
    keys, values, items = heads.keys(), heads.values(), heads.items()
    assert list(reversed(keys)) == ["a", "b"]
    assert list(reversed(values)) == [2, 1]
    assert list(reversed(items)) == [("a", 2), ("b", 1)]
    heads.c = 3
    assert (list(keys), list(values)) == (["b", "a", "c"], [1, 2, 3])
    assert keys & {"a", "z"} == {"a"}


class Named(nnx.Dict):
    @property
    def broken(self) -> Any:
        return self.missing

    @property
    def mirrored(self) -> Any:
        return 1


def test_an_error_inside_of_a_property_is_not_hidden() -> None:
    named = Named(a=1)
    with pytest.raises(AttributeError, match="Named has no attribute or key 'missing'"):
        _ = named.broken
    named["broken"] = named["mirrored"] = 2
    with pytest.raises(AttributeError, match="'missing'"):
        _ = named.broken
    assert named.mirrored == 1
    named["mro"] = 3  # what only the class has hides no key
    assert named.mro == 3


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


def test_an_empty_sequential_is_the_identity() -> None:
    model = nnx.Sequential()
    assert model(3.0) == 3.0
    assert model((1, 2)) == model(1, 2) == (1, 2)
    assert model(a=1) == {"a": 1} and model() is None and model(1, a=2) == 1
    assert model(3.0, rngs=nnx.Rngs(0)) == 3.0
    assert float(nnx.jit(model)(3.0)) == 3.0


def test_a_sequential_of_methods_and_partials() -> None:
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    without_dropout = functools.partial(dropout, deterministic=True)
    model = nnx.Sequential(without_dropout, linear.__call__, nnx.relu)
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 2
    x = jnp.ones((1, 2))
    grads = nnx.grad(lambda m: nnx.jit(lambda m, x: m(x).sum())(m, x))(model)
    assert float(jnp.abs(grads["parts"][1]["bias"][...]).sum()) > 0
    twin = nnx.clone(model)
    assert twin[1].__self__ is twin.parts[1] is not linear
    assert not hasattr(nnx.Sequential(linear), "parts")


def test_a_sequential_is_a_sequence() -> None:
    layers = [nnx.Linear(2, 2, rngs=nnx.Rngs(i)) for i in range(4)]
    model = nnx.Sequential(layers)
    assert len(model) == 4
    assert model[0] is layers[0] and model[-1] is layers[3]
    assert [*model] == [*reversed([*reversed(model)])] == layers
    part = model[1:3]
    assert type(part) is nnx.Sequential and [*part] == layers[1:3]
    assert layers[2] in model
    x = jnp.ones((1, 2))
    assert (model[2:](model[:2](x)) == model(x)).all()
    with pytest.raises(IndexError):
        model[4]
