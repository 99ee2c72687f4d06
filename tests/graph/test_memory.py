"""Memories: what they watch and what they compare, and that they keep nothing alive."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jax.numpy as jnp
import pytest

import weft as nnx
from tests.lift.zoo import Leaf
from weft._graph.memory import observe
from weft._graph.snapshot import Snapshot
from weft._graph.walk import Flattener
from weft._variable.watch import Watch


def test_metadata_is_looked_into_but_its_dict_is_not() -> None:
    variable = nnx.Param(jnp.ones(1), names=("a", "b"))
    model = nnx.Dict(w=variable)
    flattener = Flattener()
    record = flattener.flatten(model)
    snapshot = Snapshot()
    observe(flattener, record, Watch(), snapshot)
    assert snapshot.close() is None
    variable.set_metadata(names=["a", "b"])
    for _ in range(2):
        nnx.split(model)
    before = nnx.split(model)[0]
    variable.names.append("c")
    assert nnx.split(model)[0] != before


def test_nothing_is_kept_alive() -> None:
    root, shared = Leaf(), Leaf()
    root.child = old = Leaf()
    root.shared = shared
    for _ in range(3):
        nnx.split(root)
    gone = [weakref.ref(old), weakref.ref(root)]
    gc.disable()
    try:
        root.child = None
        del old
        assert gone[0]() is None  # though nobody has split the root since
        for _ in range(3):
            nnx.split(root)
        del root
        assert gone[1]() is None
    finally:
        gc.enable()
    for _ in range(100):
        root = Leaf()
        root.shared = shared
        nnx.split(root)
        nnx.split(root)
    assert len(shared._pytree_watches) < 40


def _holder(**attributes: Any) -> Any:
    root = nnx.Module()
    for name, value in attributes.items():
        setattr(root, name, value)
    return root


PARTS: dict[str, tuple[Any, Any]] = {
    "del": (lambda part: _holder(part=part), lambda m: delattr(m, "part")),
    "None": (lambda part: _holder(part=part), lambda m: setattr(m, "part", None)),
    "vars": (lambda part: _holder(part=part), lambda m: vars(m).clear()),
    "list": (lambda part: _holder(parts=[part]), lambda m: m.parts.pop()),
    "dict": (lambda part: _holder(parts={"a": part}), lambda m: m.parts.clear()),
    "List": (lambda part: _holder(parts=nnx.List([part])), lambda m: m.parts.pop()),
    "Dict": (lambda part: _holder(parts=nnx.Dict(a=part)), lambda m: delattr(m.parts, "a")),
    "pop": (lambda part: _holder(part=part), lambda m: nnx.pop(m, nnx.Param)),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_removed_is_let_go(name: str) -> None:
    part, (put, remove) = Leaf(), PARTS[name]
    gone = weakref.ref(part.weight)
    root = put(part)
    del part
    outer = _holder(root=root)
    for _ in range(3):
        nnx.split(outer)
        nnx.split(root)
    gc.disable()
    try:
        remove(root)
        nnx.split(root)  # plain containers cannot report a change: it is seen when looked for
        assert gone() is None
    finally:
        gc.enable()
