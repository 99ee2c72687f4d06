"""Contents: what is remembered of an object is what a walk would find."""

from __future__ import annotations

import threading
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft as nnx
from tests.graph.graphs import graphs
from tests.lift.changes import CHANGES
from tests.lift.donated import peek
from tests.lift.zoo import Leaf, Zoo, look
from weft._graph import content
from weft._graph.walk import Flattener


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lists the objects that are walked."""
    walked: list[Any] = []

    class Counting(Flattener):
        def flatten(self, value: Any, *args: Any) -> Any:
            walked.append(value)
            return super().flatten(value, *args)

    monkeypatch.setattr(content, "Flattener", Counting)
    return walked


def check_walk(node: Any) -> None:
    """Checks that all functions see what a walk sees."""
    flattener = Flattener()
    record = flattener.flatten(node)
    graphdef, state = nnx.split(node)
    assert graphdef.root == record
    flat = nnx.to_flat_state(state)
    found = dict(flat)
    assert found.keys() == {entry.path for entry in flattener.entries}
    assert all(found[entry.path] is entry.value for entry in flattener.entries)
    assert look(nnx.merge(graphdef, state))[1] == look(nnx.clone(node))[1] == look(node)[1]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    root = Zoo()
    for _ in range(3):
        check_walk(root)
    CHANGES[name](root)
    for _ in range(2):
        check_walk(root)


@given(graphs(), st.integers(1, 3))
def test_what_is_remembered_is_the_same(graph: Any, times: int) -> None:
    for _ in range(times):
        nnx.state(graph)
    flattener = Flattener()
    assert nnx.graphdef(graph).root == flattener.flatten(graph)
    leaves = [entry.value for entry in flattener.entries]
    if [entry.path for entry in flattener.entries] != [()]:
        flat = dict(nnx.to_flat_state(nnx.state(graph)))
        assert all(flat[entry.path] is entry.value for entry in flattener.entries)
        assert len(flat) == len(leaves)


def test_an_object_is_remembered_from_its_second_walk_on(walks: list[Any]) -> None:
    root = Zoo()
    for _ in range(5):
        nnx.split(root)
        nnx.state(root, nnx.Param)
        nnx.graphdef(root)
        nnx.clone(root)
        nnx.update(root, nnx.state(root, nnx.Param))
    assert walks == [root, root]
    root.weight[...] = root.weight + 1
    root.array = jnp.full(2, 7.0)  # another array is no other structure
    np.testing.assert_array_equal(nnx.state(root)["array"], [7.0, 7.0])
    assert walks == [root, root]
    root.size = 4
    nnx.split(root)
    assert walks == [root] * 3


def test_filters_of_every_kind(walks: list[Any]) -> None:
    root = Leaf()
    root.stat = nnx.BatchStat(jnp.ones(1), tag="a")
    asked: list[Any] = []

    def is_new(path: Any, value: Any) -> bool:
        asked.append(path)
        return bool(value[0] == 1)

    filters: dict[str, tuple[Any, ...]] = {
        "types": (nnx.Param, nnx.BatchStat),
        "tag": ("a", ...),
        "path": (nnx.PathContains("weight"), True),
        "combined": (nnx.Any(nnx.Param, "a"), nnx.Not(nnx.Param)),
        "nothing": (None, ...),
        "function": (is_new, ...),
    }
    for name, chosen in filters.items():
        first = [list(state) for state in nnx.split(root, *chosen)[1:]]
        for _ in range(2):
            assert [list(state) for state in nnx.split(root, *chosen)[1:]] == first, name
            assert [list(state) for state in nnx.state(root, *chosen)] == first
    assert len(asked) == 2 * 5  # a function may look at values: it is asked each time
    root.stat.set_metadata(tag="b")
    assert [list(state) for state in nnx.split(root, "a", ...)[1:]] == [[], ["stat", "weight"]]
    with pytest.raises(nnx.FilterError, match="leave 1 of the Variables over: stat"):
        nnx.split(root, nnx.Param)


def test_filters_that_need_not_be_exhaustive() -> None:
    root = Leaf()
    root.stat = nnx.BatchStat(jnp.ones(1))
    for _ in range(3):
        assert list(nnx.state(root, nnx.Param)) == ["weight"]
    for _ in range(2):
        with pytest.raises(nnx.FilterError, match="leave 1 of the Variables over: stat"):
            nnx.split(root, nnx.Param)
        assert list(nnx.state(root, nnx.Param)) == ["weight"]


def test_metadata_that_is_remembered_goes_with_an_update() -> None:
    root, other = Leaf(), Leaf()
    for _ in range(3):
        root.weight.set_metadata(tag="a")
        for _ in range(3):
            nnx.split(root)
        nnx.update(root, nnx.state(other))
        assert root.weight.get_metadata() == other.weight.get_metadata()


def test_states_are_apart_from_what_is_remembered() -> None:
    root = Zoo()
    nnx.state(root)
    nnx.state(root)
    state = nnx.state(root)
    state["extra"] = 1
    del state["weight"]
    state["pair"]["first"][0] = 2
    check_walk(root)


def test_shared_references_are_refused_though_remembered() -> None:
    root = Leaf()
    root.again = root.weight
    for _ in range(3):
        nnx.split(root)
    with pytest.raises(ValueError, match="shared references need `graph=True`"):
        nnx.split(root, graph=False)
    nnx.split(root)


def test_what_is_known_by_filter_is_bounded() -> None:
    root = Leaf()
    for _ in range(3):
        nnx.split(root)
    for i in range(100):
        nnx.state(root, nnx.PathContains(f"layer{i}"))
    assert len(root._pytree_memory._content._known) <= 16


def test_another_thread_may_look() -> None:
    root = Zoo()
    nnx.split(root)
    nnx.split(root)
    seen: list[Any] = []

    def look() -> None:
        root.size = 9
        seen.append(nnx.graphdef(root))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen[0] == nnx.graphdef(root)
    check_walk(root)


def test_what_is_remembered_does_not_stop_donation() -> None:
    @nnx.jit
    def train(m: Leaf) -> None:
        m.weight[...] = m.weight + 1

    m = Leaf()
    thread = threading.Thread(target=lambda: [nnx.graphdef(m) for _ in range(3)])
    thread.start()
    thread.join()
    for _ in range(3):
        train(m)
    old = peek(m.weight)
    train(m)
    assert old.is_deleted()
    states = [nnx.state(m) for _ in range(3)]
    held = states[-1]["weight"][...]
    train(m)
    np.testing.assert_array_equal(held, np.arange(2) + 4)
    nnx.update(m, {"weight": held})
    train(m)
    np.testing.assert_array_equal(held, np.arange(2) + 4)
    np.testing.assert_array_equal(m.weight, np.arange(2) + 5)
