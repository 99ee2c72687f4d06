"""Marks: which attributes are data, by decision of the user."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from tests.object.boxes import Box, leaf_paths
from tests.object.objects import Marked

CLASSES = """
class Evaluated(Marked):
    scale: nnx.Data[float]
    table: nnx.Static[Any]
    plain: dict[str, nnx.Data[int]] = {}

class Quoted(Marked):
    scale: "nnx.Data[float]"
    table: "Static[Any]"
    plain: "dict[str, Data[int]]" = {}
"""


def classes() -> dict[str, type]:
    """Classes whose annotations are objects and texts; those of `Marked` are texts."""
    namespace: dict[str, Any] = {"nnx": nnx, "Marked": nnx.Pytree, "Any": Any}
    exec(compile(CLASSES, "classes", "exec", dont_inherit=True), namespace)
    for kind in (namespace["Evaluated"], namespace["Quoted"]):
        kind.__init__ = Marked.__init__
    return {"text": Marked, "object": namespace["Evaluated"], "quoted": namespace["Quoted"]}


class Derived(Marked):
    extra: nnx.Data[int]

    def __init__(self) -> None:
        super().__init__()
        self.extra = 1


@pytest.mark.parametrize("kind", classes().values(), ids=classes())
def test_marks_by_annotation(kind: type) -> None:
    assert leaf_paths(kind()) == [".scale"]
    assert nnx.to_flat_state(nnx.state(kind())).paths == (("scale",),)


def test_marks_are_inherited() -> None:
    assert leaf_paths(Derived()) == [".extra", ".scale"]


def test_marks_by_value() -> None:
    box = Box(x=nnx.data(1.0), y=nnx.static(jnp.ones(2)), z=nnx.data(None))
    assert box.x == 1.0
    assert box.z is None
    assert leaf_paths(box) == [".x"]
    box.x = 3.0  # the mark belongs to the name
    assert leaf_paths(box) == [".x"]
    box.x = nnx.static(3.0)
    assert leaf_paths(box) == []
    box.x = nnx.data(3.0)
    del box.x
    box.x = 1.0
    assert leaf_paths(box) == []


def test_marks_do_not_reach_into_containers() -> None:
    box = Box(x=nnx.data([1.0, jnp.ones(()), ("text", 2)]), child=nnx.data(Box(y=1.0)))
    assert leaf_paths(box) == [".x[1]"]
    assert nnx.to_flat_state(nnx.state(box)).paths == (("x", 1),)
    doubled = jax.tree.map(lambda x: x * 2, box)
    assert doubled.x == [1.0, 2.0, ("text", 2)]
    assert nnx.clone(box).x == box.x

    def step(b: Box) -> None:
        b.x[1] = b.x[1] + b.x[0]
        assert b.x[2] == ("text", 2)

    nnx.jit(step)(box)
    assert float(box.x[1]) == 2.0
    assert box.x[0] == 1.0


def test_a_mark_on_what_is_no_number() -> None:
    box = Box(x=nnx.data("text"), y=nnx.data(2), z=nnx.data({"deep": [1]}))
    assert leaf_paths(box) == [".y"]
    assert nnx.to_flat_state(nnx.state(box)).paths == (("y",),)
    twin = jax.tree.map(lambda x: x + 1, box)
    assert (twin.x, twin.y, twin.z) == ("text", 3, {"deep": [1]})


def test_marks_are_part_of_the_structure() -> None:
    marked, plain = Box(x=nnx.data(jnp.ones(1))), Box(x=jnp.ones(1))
    assert nnx.graphdef(marked) != nnx.graphdef(plain)
    assert nnx.merge(*nnx.split(marked))._pytree_marks == {"x": True}
    assert jax.tree.map(lambda x: x, marked)._pytree_marks == {"x": True}


@pytest.mark.parametrize("mark", [nnx.data, nnx.static])
def test_marks_of_fields_take_no_value(mark: Any) -> None:
    found = re.escape("found a value and ['default']")
    with pytest.raises(TypeError, match=f"keyword arguments belong to a dataclass field.*{found}"):
        mark(1, default=2)
    assert isinstance(mark(default=1), dataclasses.Field)
    assert mark(metadata={"a": 1}).metadata["a"] == 1


def test_an_unknown_base_annotation_is_no_mark() -> None:
    assert Marked._pytree_class_marks == {"scale": True, "table": False, "child": True}
