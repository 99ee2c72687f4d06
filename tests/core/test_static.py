"""Static values: when two of them are the same."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import gc
import itertools
import operator
import pickle
import types
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft._core import static
from weft._core.static import Static, boxed, key_of

NAN = float("nan")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Config:
    size: Any
    name: str = "a"


@dataclasses.dataclass(frozen=True)
class Frozen:
    size: Any


@dataclasses.dataclass(eq=False)
class ByIdentity:
    size: int


class SubConfig(Config):
    """No dataclass itself, with an attribute that is no field."""

    def __init__(self, size: Any, extra: Any):
        super().__init__(size)
        self.extra = extra


class Plain:
    def __init__(self, x: Any):
        self.x = x


class Equal:
    """Hashable, compares by `==`."""

    def __init__(self, x: Any):
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)


class Unhashable:
    def __init__(self, x: Any):
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable) and self.x == other.x


class Slotted:
    """Unhashable, and without a `__dict__` to look into."""

    __slots__ = ("x",)

    def __init__(self, x: Any):
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and self.x == other.x


class Listed(list):
    label: Any = None


class Settings(dict):
    """A dict whose items are its attributes too."""

    def __init__(self, **items: Any):
        super().__init__(**items)
        self.__dict__ = self


def scaled(factor: Any, offset: Any = 0) -> Any:
    def inner(x: Any, power: Any = 2, *, shift: Any = offset) -> Any:
        return x * factor**power + shift

    return inner


AGAIN = types.FunctionType(scaled.__code__, globals(), "scaled")


def listed(label: Any) -> Listed:
    new = Listed([1])
    new.label = label
    return new


def cyclic(x: Any) -> list[Any]:
    new = [x]
    new.append(new)
    return new


def bound(x: Any) -> Any:
    return Equal(x).__eq__


# Makers of values: two calls of one maker are equal, any two makers differ.
DIFFERENT: dict[str, Any] = {
    "None": lambda: None,
    "Ellipsis": lambda: ...,
    "1": lambda: 1,
    "True": lambda: True,
    "1.0": lambda: 1.0,
    "1j": lambda: 1j,
    "0.0": lambda: 0.0,
    "-0.0": lambda: -0.0,
    "-0j": lambda: complex(0.0, -0.0),
    "nan": lambda: float("nan"),
    "complex nan": lambda: complex(NAN, 1.0),
    "'1'": lambda: "1",
    "b'1'": lambda: b"1",
    "int": lambda: int,
    "np.float32(1)": lambda: np.float32(1),
    "np.float64(1)": lambda: np.float64(1),
    "np.float32(-0.)": lambda: np.float32(-0.0),
    "np.float32(0.)": lambda: np.float32(0.0),
    "np.float32(nan)": lambda: np.float32("nan"),
    "np.int32(1)": lambda: np.int32(1),
    "dtype": lambda: np.dtype("float32"),
    "(1,)": lambda: (1,),
    "(True,)": lambda: (True,),
    "[1]": lambda: [1],
    "[[1]]": lambda: [[1]],
    "{1}": lambda: {1},
    "{True}": lambda: {True},
    "frozenset({1})": lambda: frozenset({1}),
    "frozenset of sets": lambda: frozenset({frozenset({1, "b"}), 2}),
    "{'a': 1}": lambda: {"a": 1},
    "{'a': 1.0}": lambda: {"a": 1.0},
    "{'a': [nan]}": lambda: {"a": [float("nan")]},
    "{a, b}": lambda: {"a": 1, "b": 2},
    "{b, a}": lambda: {"b": 2, "a": 1},
    "OrderedDict": lambda: collections.OrderedDict(a=1),
    "defaultdict": lambda: collections.defaultdict(list, a=1),
    "Point(1, 2)": lambda: Point(1, 2),
    "Point(1, True)": lambda: Point(1, True),
    "Color.RED": lambda: Color.RED,
    "Color.BLUE": lambda: Color.BLUE,
    "Config(1)": lambda: Config(1),
    "Config(True)": lambda: Config(True),
    "Config([1])": lambda: Config([1]),
    "Config(1, b)": lambda: Config(1, "b"),
    "Frozen(1)": lambda: Frozen(1),
    "Frozen(nan)": lambda: Frozen(float("nan")),
    "Frozen([0.0])": lambda: Frozen([0.0]),
    "Frozen([-0.0])": lambda: Frozen([-0.0]),
    "SubConfig(1, 2)": lambda: SubConfig(1, 2),
    "SubConfig(1, 3)": lambda: SubConfig(1, 3),
    "Equal(1)": lambda: Equal(1),
    "Unhashable(1)": lambda: Unhashable(1),
    "Unhashable(1.0)": lambda: Unhashable(1.0),
    "Slotted(1)": lambda: Slotted(1),
    "Slotted(2)": lambda: Slotted(2),
    "Listed a": lambda: listed("a"),
    "Listed b": lambda: listed("b"),
    "Settings(a=1)": lambda: Settings(a=1),
    "Settings(a=2)": lambda: Settings(a=2),
    "cyclic list": lambda: cyclic(1),
    "other cyclic list": lambda: cyclic(2),
    "array": lambda: np.array([1.0, NAN]),
    "array of ints": lambda: np.array([1, 2]),
    "array of 32 bits": lambda: np.array([1.0, NAN], np.float32),
    "array of two axes": lambda: np.array([[1.0, NAN]]),
    "array of objects": lambda: np.array([1, "a", None], dtype=object),
    "array of other objects": lambda: np.array([1, "b", None], dtype=object),
    "len": lambda: len,
    "jnp.sin": lambda: jnp.sin,
    "relu": lambda: jax.nn.relu,
    "scaled": lambda: scaled,
    "another function of its code": lambda: AGAIN,
    "partial(scaled, 1)": lambda: functools.partial(scaled, 1),
    "partial(scaled, factor=1)": lambda: functools.partial(scaled, factor=1),
    "bound(1)": lambda: bound(1),
    "bound(2)": lambda: bound(2),
    "itemgetter": lambda: operator.itemgetter(1).__class__,
    "adam": lambda: optax.adam(1e-3),
    "adam of another rate": lambda: optax.adam(1e-4),
    "adam on a schedule": lambda: optax.adam(optax.linear_schedule(1.0, 0.0, 10)),
    "adam on a schedule of another rate": lambda: optax.adam(optax.linear_schedule(2.0, 0.0, 10)),
    "adam on a schedule of the user's": lambda: optax.adam(scaled),
    "adam on another": lambda: optax.adam(AGAIN),
    "several steps": lambda: optax.MultiSteps(optax.adam(1e-3), 2),
    "more steps": lambda: optax.MultiSteps(optax.adam(1e-3), 3),
    "PartitionSpec": lambda: jax.sharding.PartitionSpec("a", None),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_equal_to_one_made_the_same_way(name: str) -> None:
    a, b = Static(DIFFERENT[name]()), Static(DIFFERENT[name]())
    assert a == b
    assert hash(a) == hash(b)


def test_different_from_all_others() -> None:
    boxes = {name: Static(make()) for name, make in DIFFERENT.items()}
    for (name, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert a != b, (name, other)
    assert len(set(boxes.values())) == len(boxes)


def test_other_objects_by_identity() -> None:
    for make in (lambda: Plain(1), lambda: ByIdentity(1), object, lambda: iter([1])):
        value = make()
        assert Static(value) == Static(value)
        assert Static(value) != Static(make())


def test_what_holds_data_equals_only_itself() -> None:
    class Mine(nnx.Variable):
        pass

    @nnx.dataclass
    class Model(nnx.Module):
        w: Any

    makers: list[Any] = [
        lambda: jnp.ones(2),
        lambda: nnx.Param(jnp.ones(2)),
        lambda: Mine(jnp.ones(2)),
        lambda: Model(1),
        lambda: nnx.State({"a": nnx.Param(jnp.ones(2))}),
        lambda: nnx.Linear(1, 1, rngs=nnx.Rngs(0)),
    ]
    for make in makers:
        value, other = make(), make()
        assert key_of([value]) == key_of([value])
        assert key_of([value]) != key_of([other])
        # Optax's functions refer to it.
        decays = [optax.add_decayed_weights(x) for x in (value, value, other)]
        assert key_of(decays[0]) == key_of(decays[1]) != key_of(decays[2])


def test_a_key_is_of_the_moment() -> None:
    for value, change in (
        ([1], lambda x: x.append(2)),
        ({"a": 1}, lambda x: x.clear()),
        (Config([1]), lambda x: x.size.append(2)),
        (np.zeros(2), lambda x: x.fill(1.0)),
        (Slotted(1), lambda x: setattr(x, "x", 2)),
        (Unhashable(1), lambda x: setattr(x, "x", 2)),
    ):
        before = Static(value)
        number = hash(before)
        change(value)
        assert before != Static(value)
        assert hash(before) == number
        assert before.value is value


def test_a_reused_address_is_no_identity() -> None:
    for _ in range(100):
        key = key_of(Plain(1))
        gc.collect(0)
        assert key != key_of(Plain(1))


def test_functions_equal_themselves() -> None:
    def outer(x: Any) -> Any:
        return lambda: x

    value = outer([1])
    key = key_of(value)
    assert key == key_of(value) != key_of(outer([1]))
    assert key_of(outer([1]), alike=True) == key_of(outer([1]), alike=True)
    assert key_of(outer([1]), alike=True) != key_of(outer([2]), alike=True)
    value.__closure__[0].cell_contents = 2
    assert key_of(value) == key
    method = Equal(value).__eq__
    assert key_of(method) == key_of(Equal(value).__eq__)


def from_library(source: str, **names: Any) -> Any:
    """Returns a function that passes for one of Optax."""
    space: dict[str, Any] = {"__name__": "optax.made_up"}
    exec(source, space)
    return space["make"](**names)


def test_functions_of_libraries_compare_as_they_were_when_first_seen() -> None:
    source = """
def make(x):
    def f(new=None):
        nonlocal x
        x = new if new is not None else x
    return f
"""
    first, other = from_library(source, x=1), from_library(source, x=1)
    key = key_of(first)
    first(2)
    assert key_of(first) == key
    spaces = [f.__globals__ for f in (first, other)]
    assert spaces[0] is not spaces[1]
    assert key_of(other) == key
    changed = from_library(source, x=1)
    changed(2)
    assert key_of(changed) != key
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_functions_of_libraries_that_refer_to_themselves() -> None:
    source = """
def make(x):
    def f():
        return f, g, x
    def g():
        return f
    return f
"""
    one, other = from_library(source, x=1), from_library(source, x=1)
    assert key_of(one) == key_of(other)
    assert key_of(one) != key_of(from_library(source, x=2))
    for f in (one, other):
        assert key_of(f()[1]) == key_of(one()[1])


def test_an_empty_closure_cell() -> None:
    source = """
def make(fill):
    def f():
        return later
    if fill:
        later = 1
    return f
"""
    empty = from_library(source, fill=False)
    assert key_of(empty) == key_of(from_library(source, fill=False))
    assert key_of(empty) != key_of(from_library(source, fill=True))


def test_what_cannot_be_copied_compares_by_identity() -> None:
    class Stubborn:
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

        def __eq__(self, other: object) -> bool:
            return True

    value = Stubborn()
    assert key_of(value) == key_of(value)
    assert key_of(value) != key_of(Stubborn())


def test_what_cannot_be_compared_is_not_equal() -> None:
    class Quarrelsome:
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no comparison")

        def __hash__(self) -> int:
            return 0

    class Unhashable(Quarrelsome):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    for kind in (Quarrelsome, Unhashable):
        value = kind()
        box = Static(value)
        assert box == box
        assert box != Static(kind())


def test_a_box_is_a_pytree_without_leaves() -> None:
    box = Static([1])
    leaves, treedef = jax.tree.flatten({"a": box, "b": 1.0})
    assert leaves == [1.0]
    assert jax.tree.unflatten(treedef, [2.0])["a"].value == [1]
    assert repr(box) == "Static([1])"


def test_a_box_is_copied_and_pickled_without_its_key() -> None:
    value = Config([1.0, "text"])
    box = Static(value)
    hash(box)
    for new in (pickle.loads(pickle.dumps(box)), copy.deepcopy(box)):
        assert new == box
        assert new.value is not value
    assert pickle.loads(pickle.dumps(Static(scaled))) == Static(scaled)


def test_common_values_share_a_box_until_they_are_forgotten() -> None:
    assert boxed((1, "a")) is boxed((1, "a"))
    assert boxed(scaled) is not boxed(AGAIN)
    box = boxed(scaled)
    assert boxed(scaled) is box
    assert boxed((1, True)) != boxed((1, 1))
    assert str(boxed(0.0)) != str(boxed(-0.0))
    before = boxed("text")
    static.clear()
    assert boxed("text") is not before
    assert boxed("text") == before
    for i in range(2 * static._MOST):
        boxed(i)
    assert len(static._boxes) <= static._MOST


def test_boxes_keep_no_functions_alive() -> None:
    def inner() -> None:
        pass

    boxed(inner)
    gone = weakref.ref(inner)
    del inner
    gc.collect()
    assert gone() is None
