"""Snapshots: whatever decides about a static value's key is compared, and nothing else."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from weft._core.makeup import Aspect
from weft._core.static import Static, Watched, key_of
from weft._graph.snapshot import Snapshot


class Method:
    def __init__(self) -> None:
        self.sizes = [1]

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Method) and self.sizes == other.sizes

    def call(self) -> Any:
        return self.sizes


class Words(list):
    """A list with attributes of its own."""


@dataclasses.dataclass(frozen=True)
class Frozen:
    sizes: list[int]


@dataclasses.dataclass
class Mutable:
    size: int


class Point(tuple):
    __slots__ = ()


class Slots:
    """Unhashable, without an attribute dict."""

    __slots__ = ("size",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.size = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slots) and self.size == other.size

    def __deepcopy__(self, memo: Any) -> Slots:
        new = Slots()
        new.size = self.size
        return new


def keyword_default(x: Any, *, sizes: Any) -> Any:
    return x


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1, [2]], lambda x: x[1].append(3)),
    "list of equal length": (lambda: [1, [2]], lambda x: x[1].__setitem__(0, 3)),
    "tuple": (lambda: (1, [2]), lambda x: x[1].append(3)),
    "subclass of tuple": (lambda: Point((1, [2])), lambda x: x[1].append(3)),
    "dict": (lambda: {"a": [1]}, lambda x: x["a"].append(3)),
    "key of a dict": (lambda: {"a": 1}, lambda x: x.update(b=x.pop("a"))),
    "ordered dict": (lambda: collections.OrderedDict(a=1, b=2), lambda x: x.move_to_end("a")),
    "order of equal values": (
        lambda: collections.OrderedDict(a=1, b=1),
        lambda x: x.move_to_end("a"),
    ),
    "set": (lambda: {1}, lambda x: x.add(2)),
    "array": (lambda: np.zeros(2), lambda x: x.__setitem__(0, 1)),
    "subclass of list": (lambda: Words([1]), lambda x: x.append(2)),
    "attribute of a list": (lambda: Words([1]), lambda x: setattr(x, "language", "en")),
    "dataclass": (lambda: Mutable(1), lambda x: setattr(x, "size", 2)),
    "attributes of a dataclass": (
        lambda: Mutable(1),
        lambda x: setattr(x, "__dict__", {"size": 2}),
    ),
    "frozen dataclass": (lambda: Frozen([1]), lambda x: x.sizes.append(2)),
    "slots": (lambda: Slots(), lambda x: setattr(x, "size", 2)),
    "method": (lambda: Method().call, lambda x: x.__self__.sizes.append(2)),
    "partial": (
        lambda: functools.partial(keyword_default, sizes=[1]),
        lambda x: x.keywords["sizes"].append(2),
    ),
    "argument of a partial": (
        lambda: functools.partial(keyword_default, [1]),
        lambda x: x.args[0].append(2),
    ),
}


def snapshot_of(value: Any) -> Snapshot | None:
    snapshot = Snapshot()
    snapshot.add_static(Static(value).watched)
    return snapshot.close()


@pytest.mark.parametrize("name", CHANGES)
def test_changes_in_place_are_seen(name: str) -> None:
    make, change = CHANGES[name]
    value = make()
    snapshot, key = snapshot_of(value), key_of(value)
    assert snapshot is not None
    assert snapshot.holds()
    change(value)
    assert key_of(value) != key
    assert not snapshot.holds()


FIXED: list[Any] = [
    *(None, True, 1, 1.5, 1j, "text", b"bytes", int, ..., len, np.float32(1), jnp.float32),
    *((), (1, ("a",)), frozenset({1}), keyword_default, lambda: [1], Slots, object()),
]


@pytest.mark.parametrize("value", FIXED, ids=range(len(FIXED)))
def test_what_cannot_change_is_not_compared(value: Any) -> None:
    assert snapshot_of(value) is None


def test_attributes_that_are_gone() -> None:
    value = Mutable(1)
    snapshot = snapshot_of(value)
    assert snapshot is not None
    vars(value).clear()
    assert not snapshot.holds()


def test_what_holds_itself() -> None:
    value: list[Any] = [1]
    value.append(value)
    snapshot = snapshot_of(value)
    assert snapshot is not None
    assert snapshot.holds()
    value[0] = 2
    assert not snapshot.holds()


CONTAINERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1], lambda x: x.append(2)),
    "dict": (lambda: {"a": 1}, lambda x: x.update(a=2)),
    "set": (lambda: {1}, lambda x: x.add(2)),
    "deque": (lambda: collections.deque([1]), lambda x: x.append(2)),
    "ordered dict": (
        lambda: collections.OrderedDict(a=1, b=1),
        lambda x: x.move_to_end("a"),
    ),
    "default factory": (
        lambda: collections.defaultdict(list),
        lambda x: setattr(x, "default_factory", None),
    ),
    "namespace": (lambda: types.SimpleNamespace(a=1), lambda x: setattr(x, "a", 2)),
    "new attribute": (lambda: types.SimpleNamespace(a=1), lambda x: setattr(x, "b", 2)),
    "item of a subclass": (lambda: Words([1]), lambda x: x.append(2)),
    "attribute of a subclass": (lambda: Words([1]), lambda x: setattr(x, "language", "en")),
    "another class": (lambda: Words([1]), lambda x: setattr(x, "__class__", OtherWords)),
    "dataclass": (lambda: Mutable(1), lambda x: setattr(x, "size", 2)),
    "slots": (lambda: SlottedFields(1), lambda x: setattr(x, "size", 2)),
    "empty slot": (lambda: SlottedFields(1), lambda x: delattr(x, "size")),
    "key": (lambda: Vocabulary(a=1), lambda x: x.__setitem__("b", x.pop("a"))),
}


class OtherWords(list):
    pass


class Vocabulary(dict):
    """A dict that shows nothing of what it holds."""

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclasses.dataclass(slots=True)
class SlottedFields:
    size: int


@pytest.mark.parametrize("name", CONTAINERS)
def test_changes_of_nodes_are_seen(name: str) -> None:
    make, change = CONTAINERS[name]
    value, snapshot = make(), Snapshot()
    snapshot.add_container(value)
    closed = snapshot.close()
    assert closed is not None and closed.holds()
    change(value)
    assert not closed.holds()


def test_functions_are_taken_as_they_are() -> None:
    """A function equals itself, whatever becomes of what it closes over."""

    def outer(sizes: list[int]) -> Any:
        return lambda x=sizes: (x, sizes)

    value = outer([1])
    key = key_of(value)
    assert snapshot_of([value]) is not None  # of the list
    assert snapshot_of(value) is None
    value.__defaults__[0].append(2)
    assert key_of(value) == key


def test_large_containers_see_all_but_an_equal_element_of_another_type() -> None:
    value: list[Any] = list(range(3000))
    snapshot = snapshot_of(value)
    assert snapshot is not None
    value[1] = True
    assert snapshot.holds()
    value[2] = 2.5
    assert not snapshot.holds()


def test_read_only_arrays_are_not_copied_and_not_compared() -> None:
    value = np.arange(4.0)
    value.setflags(write=False)
    box, snapshot = Static(value), snapshot_of(value)
    assert box == Static(np.arange(4.0))
    assert box != Static(np.arange(4.0) + 1)
    assert snapshot is not None
    assert snapshot.holds()
    value.setflags(write=True)
    assert not snapshot.holds()
    value[0] = 5
    assert box != Static(value)
    value[0] = 0
    assert box != Static(np.arange(4.0))  # what it was is not known any more


def test_a_view_is_read_only_if_all_below_it_is() -> None:
    own = np.arange(4.0)
    view = own[:2]
    view.setflags(write=False)
    box, snapshot = Static(view), snapshot_of(view)
    assert snapshot is not None
    own[0] = 7
    assert not snapshot.holds()
    assert box != Static(view)
    shared = np.frombuffer(b"abcd", np.uint8)
    assert Static(shared) == Static(np.frombuffer(b"abcd", np.uint8).copy())


def test_a_container_that_another_thread_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def growing(x: dict[Any, Any]) -> Any:
        for key in x:
            x[key + 1] = 0
            yield [key]

    snapshot = snapshot_of({"a": 1})
    assert snapshot is not None
    monkeypatch.setattr(Snapshot, "_read", lambda self: growing({0: 0}))
    assert not snapshot.holds()


def test_what_changes_while_a_snapshot_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(*_: Any) -> Any:
        raise RuntimeError("dictionary changed size during iteration")

    aspect = Aspect(grow)
    snapshot = Snapshot()
    snapshot.add_static([Watched(aspect, {"a": 1})])
    closed = snapshot.close()
    assert closed is not None
    assert not closed.holds()
    snapshot = Snapshot()
    snapshot.add_container({"a": 1})
    monkeypatch.setattr(Snapshot, "_read", lambda self: map(grow, [1]))
    closed = snapshot.close()
    assert closed is not None
    assert not closed.holds()
