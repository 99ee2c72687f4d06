"""Cycles have no pytree form: the error names the path, and only real cycles are errors."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft as nnx


class Node(nnx.Pytree):
    def __init__(self) -> None:
        self.children: list[Any] = []


@st.composite
def graphs(draw: Any) -> tuple[list[Node], list[list[int]]]:
    """Nodes and, for each, the numbers of its children, repeats included."""
    size = draw(st.integers(1, 6))
    number = st.integers(0, size - 1)
    edges = [draw(st.lists(number, max_size=3)) for _ in range(size)]
    nodes = [Node() for _ in range(size)]
    for node, targets in zip(nodes, edges, strict=True):
        for i, target in enumerate(targets):
            held = nodes[target]
            node.children.append(draw(st.sampled_from([held, [held], {"k": (held, i)}])))
    return nodes, edges


def has_cycle(edges: list[list[int]], start: int) -> bool:
    def visit(node: int, path: tuple[int, ...]) -> bool:
        return node in path or any(visit(child, (*path, node)) for child in edges[node])

    return visit(start, ())


@given(graphs())
def test_exactly_the_graphs_with_cycles_are_refused(graph: Any) -> None:
    nodes, edges = graph
    for i, node in enumerate(nodes):
        found = leaves_or_error(node)
        if has_cycle(edges, i):
            assert isinstance(found, nnx.CycleError)
            assert "is the Node itself: a cycle has no pytree form" in str(found)
        else:
            assert found == []


def leaves_or_error(node: Node) -> Any:
    """Flattens in a thread of its own: JAX forgets to give back stack depth after an error."""
    found: list[Any] = []

    def flatten() -> None:
        try:
            found.append(jax.tree.leaves(node))
        except nnx.CycleError as error:
            found.append(error)

    thread = threading.Thread(target=flatten)
    thread.start()
    thread.join()
    return found[0]


def test_the_remedy() -> None:
    node = Node()
    node.children.append(node)
    found = r"^Node\.children\[0\] is the Node itself.*Use `nnx\.split`, `nnx\.jit`"
    with pytest.raises(nnx.CycleError, match=found):
        jax.jit(lambda n: None)(node)
    graphdef, state = nnx.split(node)
    again = nnx.merge(graphdef, state)
    assert again.children[0] is again


def test_a_shared_object_is_no_cycle() -> None:
    shared = Node()
    shared.w = nnx.Param(jnp.ones(1))
    top = Node()
    top.children = [shared, [shared], {"a": shared}]
    assert len(jax.tree.leaves(top)) == 3
    assert len(jax.tree.leaves([top, top, shared])) == 7


def test_flattening_that_stops_early_leaves_nothing_behind() -> None:
    top, below = Node(), Node()
    top.children = [below]
    below.children = [Node()]
    for _ in range(3):
        jax.tree.leaves(top, is_leaf=lambda x: x is below)
        jax.tree.leaves(below)
        assert jax.tree.leaves({"a": below, "b": top}) == []


def test_threads_do_not_disturb_each_other() -> None:
    def tower(depth: int) -> Node:
        node = Node()
        if depth:
            node.children = [tower(depth - 1), tower(depth - 1)]
        return node

    top, found = tower(6), []

    def flatten() -> None:
        for _ in range(5):
            found.append(jax.tree.leaves(top))

    threads = [threading.Thread(target=flatten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[]] * 20
