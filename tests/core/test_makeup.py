"""The table of what static values are made of, row by row, for all who use it.

For each row: values made alike are equal, whatever changes in place makes another key, a snapshot
notices it, and a report names the path.
"""

from __future__ import annotations

import argparse
import array
import collections
import dataclasses
import functools
import gc
import logging
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft._core import makeup
from weft._core.differences import narrow, text_of
from weft._core.makeup import Compare, makeup_of
from weft._core.static import Static, key_of
from weft._graph.snapshot import Snapshot

Change = Callable[[Any], Any]
ITSELF = ""
UNNAMED = None


class Row(NamedTuple):
    """How to make a value, and ways to change it, each with the path of what differs then.

    The path is ITSELF where no part of a name differs, and UNNAMED where it is no matter.
    `is_equal` says whether two values made alike are equal.
    """

    make: Callable[[], Any]
    changes: list[tuple[Change, str | None]]
    is_equal: bool = True


class Plain:
    x: Any
    y: Any
    children: list[Any]

    def __init__(self, **attributes: Any):
        vars(self).update(attributes)


class Equal(Plain):
    """Hashable, compares by a part of itself."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)

    def method(self) -> Any:
        return self.x


class Unhashable(Equal):
    __hash__ = None  # type: ignore[assignment]


class BrokenHash(Plain):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrokenHash) and self.x == other.x

    def __hash__(self) -> int:
        return hash([self.x])


class Slots:
    __slots__ = ("__private", "unset", "x")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.x, self.__private = 1, 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slots) and self.x == other.x

    def change(self) -> None:
        self.__private = 3


class MoreSlots(Slots):
    __slots__ = ("y",)

    def __init__(self) -> None:
        super().__init__()
        self.y = [1]


class SlotsAndAttributes(Slots):
    pass


@dataclasses.dataclass
class Config:
    size: Any = 1

    def __post_init__(self) -> None:
        self.scale = 1.0  # an attribute that is no field


class SubConfig(Config):
    pass


@dataclasses.dataclass(slots=True)
class SlottedConfig:
    size: Any = 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    size: Any

    @functools.cached_property
    def double(self) -> Any:
        return 2 * self.size


@dataclasses.dataclass(eq=False)
class ById:
    size: int = 1


@dataclasses.dataclass(unsafe_hash=True)
class Hashed:
    size: int = 1


class Point(NamedTuple):
    x: Any
    y: Any


class Pair(tuple):
    """A tuple with attributes."""


class Words(list):
    """A list with attributes, and an iterator that does not tell what is in it."""

    def __iter__(self) -> Any:
        return iter(())


class Table(dict):
    def __iter__(self) -> Any:
        return iter(())

    values = items = keys = None  # type: ignore[assignment]


class AttrDict(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__  # type: ignore[assignment]


class Self(dict):
    """A dict whose items are its attributes too."""

    def __init__(self, **items: Any):
        super().__init__(**items)
        self.__dict__ = self


class Bag(set):
    pass


class Call(functools.partial):
    pass


class Buffer(bytearray):
    """Unhashable, with content that only C sees, and attributes."""


class Matrix(np.ndarray):
    unit: str


class Number(float):
    pass


def function(*args: Any, **kwargs: Any) -> Any:
    return args


def proxy() -> tuple[Any, dict[str, Any]]:
    own: dict[str, Any] = {"a": 1, "b": [1]}
    return types.MappingProxyType(own), own


def matrix() -> Any:
    made = np.zeros(2).view(Matrix)
    made.unit = "m"
    return made


def attribute(name: str, value: Any = 2) -> Change:
    return lambda x: setattr(x, name, value)


def shape(value: tuple[int, ...]) -> Change:
    def change(x: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2.5
            x.shape = value

    return change


def item(key: Any, value: Any = 2) -> Change:
    return lambda x: x.__setitem__(key, value)


def with_attribute(value: Any, **attributes: Any) -> Any:
    for name, x in attributes.items():
        setattr(value, name, x)
    return value


MANY = 3000
RECORD = np.dtype([("a", "i4"), ("b", "U3")])
ATTRIBUTES: list[tuple[Change, str | None]] = [
    (attribute("x"), "x"),
    (attribute("new"), ITSELF),
    (lambda x: vars(x).clear(), ITSELF),
    (lambda x: setattr(x, "__dict__", {"x": 2}), "x"),
]

ROWS: dict[str, Row] = {
    "list": Row(lambda: [1, [2]], [(item(0, 3), "0"), (lambda x: x[1].append(3), "1")]),
    "list in a list": Row(lambda: [1, [2]], [(lambda x: x[1].__setitem__(0, 3), "1.0")]),
    "numbers of other types": Row(lambda: [1, 0.0], [(item(0, True), "0"), (item(1, -0.0), "1")]),
    "deque": Row(
        lambda: collections.deque([1, 2], 5),
        [(item(1, 3), "1"), (lambda x: x.rotate(1), "0"), (lambda x: x.clear(), ITSELF)],
    ),
    "tuple": Row(lambda: (1, [2]), [(lambda x: x[1].__setitem__(0, 3), "1.0")]),
    "named tuple": Row(lambda: Point(1, [2]), [(lambda x: x.y.__setitem__(0, 3), "y.0")]),
    "subclass of tuple": Row(
        lambda: with_attribute(Pair((1, [2])), x=1),
        [(lambda x: x[1].__setitem__(0, 3), "1.0"), *ATTRIBUTES],
    ),
    "dict": Row(
        lambda: {"a": 1, "b": [1]},
        [
            (item("a"), "a"),
            (item("c"), ITSELF),
            (lambda x: x.update(a=x.pop("a")), ITSELF),  # order
            (lambda x: x["b"].__setitem__(0, 3), "b.0"),
        ],
    ),
    "ordered dict": Row(
        lambda: collections.OrderedDict(a=1, b=2),
        [(item("a", 3), "a"), (lambda x: x.move_to_end("a"), ITSELF)],
    ),
    "default dict": Row(
        lambda: collections.defaultdict(list, a=1),
        [(item("a"), "a"), (attribute("default_factory", dict), "default_factory")],
    ),
    "counter": Row(lambda: collections.Counter("aab"), [(lambda x: x.update("a"), "a")]),
    "set": Row(lambda: {1, 2}, [(lambda x: x.add(3), ITSELF)]),
    "frozen set": Row(lambda: frozenset({1, (2, 3)}), []),
    "mapping proxy": Row(lambda: proxy()[0], [(lambda x: x["b"].__setitem__(0, 3), "b.0")]),
    "name space": Row(lambda: types.SimpleNamespace(x=1, y=[2]), ATTRIBUTES[:-1]),
    "arguments": Row(lambda: argparse.Namespace(x=1), ATTRIBUTES),
    "user dict": Row(lambda: collections.UserDict(a=1), [(item("a"), "data.a")]),
    "user list": Row(lambda: collections.UserList([1]), [(item(0), "data.0")]),
    "chain of maps": Row(
        lambda: collections.ChainMap({"a": 1}, {"b": 2}), [(item("a"), "maps.0.a")]
    ),
    "subclass of list": Row(
        lambda: with_attribute(Words([1, 2]), x=1), [(item(0, 3), "0"), *ATTRIBUTES]
    ),
    "subclass of dict": Row(
        lambda: with_attribute(Table(a=1), x=1), [(item("a"), "a"), *ATTRIBUTES]
    ),
    "dict with its items as attributes": Row(lambda: AttrDict(a=1), [(attribute("a"), "a")]),
    "dict that is its own attributes": Row(lambda: Self(a=1), [(attribute("a"), "a")]),
    "subclass of set": Row(
        lambda: with_attribute(Bag({1}), x=1), [(lambda x: x.add(2), ITSELF), *ATTRIBUTES]
    ),
    "dataclass": Row(
        Config, [(attribute("size"), "size"), (attribute("scale"), "scale"), (attribute("new"), "")]
    ),
    "subclass of a dataclass": Row(SubConfig, [(attribute("size"), "size")]),
    "dataclass with slots": Row(SlottedConfig, [(attribute("size"), "size")]),
    "frozen dataclass": Row(
        lambda: Frozen([1]),
        [(lambda x: x.size.__setitem__(0, 2), "size.0"), (lambda x: vars(x).update(new=1), "")],
    ),
    "hashed dataclass": Row(Hashed, [(attribute("size"), "size")]),
    "dataclass by identity": Row(ById, [(attribute("size"), "size")], is_equal=False),
    "object": Row(
        lambda: Plain(x=1, y=Plain(z=[1])),
        [*ATTRIBUTES, (lambda x: x.y.z.__setitem__(0, 2), "y.z.0")],
        is_equal=False,
    ),
    "object with an equality of its own": Row(
        lambda: Equal(x=1, y=[1]), [*ATTRIBUTES, (lambda x: x.y.__setitem__(0, 2), "y.0")]
    ),
    "unhashable object": Row(lambda: Unhashable(x=1), ATTRIBUTES),
    "object that fails to hash": Row(lambda: BrokenHash(x=1), ATTRIBUTES),
    "slots": Row(
        Slots,
        [
            (attribute("x"), "x"),
            (lambda x: x.change(), "_Slots__private"),
            (attribute("unset"), ITSELF),
            (lambda x: delattr(x, "x"), ITSELF),
        ],
    ),
    "inherited slots": Row(
        MoreSlots, [(attribute("x"), "x"), (lambda x: x.y.__setitem__(0, 2), "y.0")]
    ),
    "slots and attributes": Row(
        SlotsAndAttributes, [(attribute("x"), "x"), (attribute("new"), ITSELF)]
    ),
    "partial": Row(
        lambda: with_attribute(functools.partial(function, [1], a=1), x=1),
        [
            (lambda x: x.args[0].__setitem__(0, 2), "args.0.0"),
            (lambda x: x.keywords.update(a=2), "a"),
            (attribute("x"), "x"),
        ],
    ),
    "subclass of partial": Row(lambda: with_attribute(Call(function), x=1), ATTRIBUTES[:-1]),
    "bound method": Row(
        lambda: Equal(x=1).method, [(lambda m: setattr(m.__self__, "x", 2), "__self__.x")]
    ),
    "array": Row(
        lambda: np.zeros((2, 2)),
        [
            (item((0, 1), 1), ITSELF),
            (item((0, 1), -0.0), ITSELF),
            (shape((4,)), ITSELF),
            (lambda x: x.setflags(write=False) or x.setflags(write=True) or x.fill(1), ITSELF),
        ],
    ),
    "array of nothing": Row(lambda: np.zeros((0, 2)), [(shape((2, 0)), ITSELF)]),
    "array without axes": Row(lambda: np.array(1.0), [(item((), 2.0), ITSELF)]),
    "array in other orders": Row(
        lambda: [np.zeros((2, 3)).T, np.arange(6.0)[::2]],
        [(lambda x: x[0].fill(1), "0"), (lambda x: x[1].fill(1), "1")],
    ),
    "array of strings": Row(lambda: np.array(["a", "b"]), [(item(0, "c"), ITSELF)]),
    "array of strings of any length": Row(
        lambda: np.array(["a", "b"], np.dtypes.StringDType()), [(item(0, "c"), ITSELF)]
    ),
    "array of times": Row(
        lambda: np.array(["2020-01-01", "NaT"], "M8[D]"), [(item(1, "2021-01-01"), ITSELF)]
    ),
    "array of objects": Row(
        lambda: np.array([1, "a", None, [1]], object),
        [(item(0, True), "0"), (lambda x: x[3].__setitem__(0, 2), "3.0")],
    ),
    "array of records": Row(
        lambda: np.array([(1, "x")], RECORD), [(lambda x: x["a"].fill(2), ITSELF)]
    ),
    "array of records with objects": Row(
        lambda: np.array([(1, "x")], [("a", "i4"), ("b", object)]), [(item(0, (1, "y")), ITSELF)]
    ),
    "record": Row(lambda: np.array([(1, "x")], RECORD)[0], [(item("a", 2), ITSELF)]),
    "subclass of array": Row(matrix, [(item(0, 1), ITSELF), (attribute("unit", "s"), "unit")]),
    "bytes that change": Row(lambda: bytearray(b"ab"), [(item(0, 1), ITSELF)]),
    "bytes with attributes": Row(
        lambda: with_attribute(Buffer(b"ab"), x=1), [(item(0, 1), ITSELF), *ATTRIBUTES]
    ),
    "array of the standard library": Row(lambda: array.array("d", [1.0]), [(item(0, 2.0), ITSELF)]),
    "many numbers": Row(
        lambda: list(range(MANY)), [(item(MANY - 1, 0), str(MANY - 1)), (lambda x: x.pop(), "")]
    ),
    "many names": Row(
        lambda: {str(i): i for i in range(MANY)},
        [(item("7", 0), "7"), (lambda x: x.update({"0": x.pop("0")}), ITSELF)],
    ),
    "deque of many": Row(
        lambda: collections.deque(range(MANY)), [(item(5, 0), "5"), (lambda x: x.rotate(), "0")]
    ),
    "many arrays": Row(lambda: [np.zeros(1)] * MANY, [(item(3, np.ones(1)), "3")]),
    "number with attributes": Row(lambda: with_attribute(Number(1.5), x=1), ATTRIBUTES),
    "optimizer of several steps": Row(
        lambda: optax.MultiSteps(optax.sgd(0.1), 2), [(attribute("_use_grad_mean", False), UNNAMED)]
    ),
}


def snapshot_of(value: Any) -> Snapshot | None:
    snapshot = Snapshot()
    snapshot.add_static(Static(value).watched)
    return snapshot.close()


@pytest.mark.parametrize("name", ROWS)
def test_a_row(name: str) -> None:
    row = ROWS[name]
    assert (Static(row.make()) == Static(row.make())) is row.is_equal
    for change, path in [*row.changes, (None, None)]:
        value = row.make()
        box, snapshot = Static(value), snapshot_of(value)
        assert box == Static(value)
        assert hash(box) == hash(Static(value))
        assert snapshot is None or snapshot.holds()
        if change is None:
            continue
        assert snapshot is not None
        change(value)
        after = Static(value)
        assert not snapshot.holds()
        assert box != after
        assert box.value is value
        if path is not UNNAMED:
            found, one, other = narrow(box.key, after.key)
            assert ".".join(map(str, found)) == path
            assert text_of(one)
            assert text_of(other)


def test_what_a_proxy_stands_for() -> None:
    value, own = proxy()
    box, snapshot = Static(value), snapshot_of(value)
    assert snapshot is not None
    own["a"] = 2
    assert not snapshot.holds()
    assert narrow(box.key, key_of(value)) == (("a",), (int, 1), (int, 2))


def test_what_a_cached_property_holds_does_not_count() -> None:
    value = Frozen(2)
    box, snapshot = Static(value), snapshot_of(value)
    assert value.double == 4
    assert Static(value) == box
    assert snapshot is not None
    assert snapshot.holds()


FIXED: list[Any] = [
    *(None, True, 1, 1.5, 1j, "text", b"bytes", int, ..., len, np.float32(1), jnp.float32),
    *((), (1, ("a",)), frozenset({1}), function, Slots, object(), np.tanh, range(3)),
    *(jnp.sin, jax.nn.relu, lambda: [1], threading.Lock(), logging.getLogger("a"), types),
    *(jax.sharding.PartitionSpec("a"), jax.devices()[0], np.dtype("i4"), optax.adam(1e-3)),
    *(jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,)), Compare.ATOM),
    *(nnx.Param(1.0), nnx.Linear(1, 1, rngs=nnx.Rngs(0)), jnp.ones(2), nnx.All(nnx.Param)),
    *(jax.random.key_impl(jax.random.key(0)), np.random.default_rng(0)),
]


@pytest.mark.parametrize("value", FIXED, ids=range(len(FIXED)))
def test_what_is_not_looked_into(value: Any) -> None:
    assert Static(value) == Static(value)
    assert snapshot_of(value) is None


class SlotsByIdentity:
    __slots__ = ("x",)


def test_a_partial_is_left_as_it_is() -> None:
    value: Any = functools.partial(function, a=1)
    box = Static(value)
    assert snapshot_of(value) is not None
    joined = functools.partial(value, b=2)
    assert joined.func is function  # Python joins what has no attributes
    value.x = 1
    assert box != Static(value)


def test_filters_that_cannot_be_hashed() -> None:
    def axes(kind: Any) -> Any:
        return nnx.StateAxes([([nnx.Param, kind], 0), (..., None)])

    assert Static(axes("a")) == Static(axes("a")) != Static(axes("b"))
    assert hash(Static(axes("a"))) == hash(Static(axes("a")))
    for _ in range(2):
        run = nnx.scan(lambda x, m: x + m.a, in_axes=(nnx.Carry, axes("a")), out_axes=nnx.Carry)
        assert run(0.0, nnx.Dict(a=nnx.Param(jnp.arange(3.0)))) == 3.0


def test_what_cannot_be_noticed() -> None:
    value = SlotsByIdentity()
    value.x = 1
    box = Static(value)
    value.x = 2
    assert Static(value) == box
    assert snapshot_of(value) is None


def test_an_object_that_holds_too_much_is_taken_as_it_is() -> None:
    value: list[Any] = [Plain(x=list(range(20_000))), Plain(x=1)]
    box, snapshot = Static(value), snapshot_of(value)
    value[0].x[0] = 5
    assert Static(value) == box
    assert snapshot is not None
    assert snapshot.holds()
    value[1].x = 2
    assert Static(value) == box  # so is what comes after it
    value.pop()
    assert Static(value) != box
    assert not snapshot.holds()


class Growing(collections.deque):
    """A deque that another thread seems to change whenever it is looked at."""


def test_objects_that_cannot_be_looked_at_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Plain(x=None)
    for _ in range(3000):
        chain = Plain(x=chain)
    buffer = Plain(x=np.zeros(1_000_000))
    for value in (chain, buffer):
        assert Static(value) == Static(value)
        assert snapshot_of(value) is None
    config = Config(np.zeros(1_000_000))  # this one is compared by what it holds
    snapshot = snapshot_of(config)
    assert snapshot is not None
    config.size[5] = 1
    assert not snapshot.holds()

    def grow(x: Any) -> Any:
        raise RuntimeError("deque mutated during iteration")

    aspect = makeup_of(Growing).aspects[0]
    grown = makeup_of(Growing)._replace(aspects=(aspect._replace(values=grow),))
    monkeypatch.setitem(makeup._found, Growing, grown)
    value = Plain(x=Growing([1]))
    assert Static(value) == Static(value)
    assert snapshot_of(value) is None


def test_objects_that_refer_to_each_other() -> None:
    def family(size: int) -> Plain:
        parent = Plain(children=[], name="a")
        for _ in range(size):
            parent.children.append(Plain(parent=parent, brothers=parent.children))
        return parent

    value = family(50)
    box, snapshot = Static(value), snapshot_of(value)
    assert Static(value) == box
    assert snapshot is not None
    value.children[7].extra = 1
    assert Static(value) != box
    assert not snapshot.holds()


def test_an_object_twice_in_one_value() -> None:
    one = Plain(x=1)
    value = [one, one]
    box = Static(value)
    assert box == Static([one, one])
    one.x = 2
    assert box != Static(value)
    assert Static([one]) != Static(one)


def test_an_array_that_did_not_change_keeps_its_key() -> None:
    value = np.zeros(3)
    one, other = Static(value), Static([value])
    assert one.key.head is other.key.aspects[0][0].head  # type: ignore[union-attr]
    value[0] = 1
    assert Static(value).key.head is not one.key.head  # type: ignore[union-attr]


def test_classes_are_not_kept_alive() -> None:
    class Gone:
        __slots__ = ("x",)
        __hash__ = None  # type: ignore[assignment]

    makeup_of(Gone)
    gone = weakref.ref(Gone)
    del Gone
    gc.collect()
    assert gone() is None
