"""What each object holds, compared with a walk of its own for each."""

from __future__ import annotations

import random
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._graph.tally import own_leaves, tally
from weft._graph.walk import Flattener


def group_of(leaf: Any) -> str:
    return type(leaf).__name__ if isinstance(leaf, nnx.Variable) else "arrays"


def counted_alone(obj: Any) -> dict[str, tuple[int, int]]:
    """Walks the object and what is below it, whatever was walked before."""
    flattener = Flattener()
    flattener.flatten(obj)
    found: dict[str, tuple[int, int]] = {}
    for _, leaf, _ in flattener.entries:
        value = leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        for array in jax.tree.leaves(value):
            number, size = found.get(group_of(leaf), (0, 0))
            found[group_of(leaf)] = (number + array.size, size + array.nbytes)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_as_if_each_object_were_counted_alone(seed: int) -> None:
    draw = random.Random(seed)
    made: list[Any] = []
    for i in range(25):
        kind = draw.choice([nnx.Param, nnx.BatchStat, nnx.Dict, nnx.Dict, nnx.List, "array"])
        if isinstance(kind, type) and issubclass(kind, nnx.Variable):
            made.append(kind({"a": jnp.ones(i), "b": jnp.ones((2, i), jnp.int8)}))
        elif kind == "array":
            made.append(jnp.ones(i, jnp.bfloat16))
        else:
            parts = draw.choices(made, k=draw.randrange(4)) if made else []
            made.append(nnx.List(parts) if kind is nnx.List else nnx.Dict(enumerate(parts)))
    root = nnx.List(made)
    sizes = tally(root, group_of)
    for obj in (root, *made):
        if isinstance(obj, nnx.Pytree):
            assert sizes[id(obj)] == counted_alone(obj)


def test_leaves_of_an_object_itself() -> None:
    tied = nnx.Param(jnp.ones(2))
    low = nnx.Dict(tied=tied, table=jnp.ones(3))
    root = nnx.Dict(a=[tied, {"b": nnx.Param(1.0)}], low=low, after=tied, again=low)
    found = own_leaves(root)
    assert [path for path, _ in found[id(root)]] == [("a", 0), ("a", 1, "b"), ("after",)]
    assert [path for path, _ in found[id(low)]] == [("table",), ("tied",)]
    assert found[id(low)][1][1] is tied


def test_what_leads_up_again_adds_nothing() -> None:
    root = nnx.Dict(w=nnx.Param(jnp.ones(3)))
    root.child = nnx.Dict(w=nnx.Param(jnp.ones(2)), parent=root)
    sizes = tally(root, group_of)
    assert sizes[id(root)] == {"Param": (5, 20)}
    assert sizes[id(root.child)] == {"Param": (2, 8)}
