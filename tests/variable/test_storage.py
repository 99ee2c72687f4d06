"""Storage: many objects and Variables made at once have what one made alone has."""

from __future__ import annotations

import types
from typing import Any

import jax
import pytest

import weft as nnx
from weft._core import trace
from weft._variable.storage import (
    ObjectStorage,
    VariableStorage,
    fill_variable,
    make_object,
    make_objects,
    make_variables,
)


class Plain(nnx.Module):
    pass


class Slotted(nnx.Module):
    __slots__ = ("extra",)

    def _pytree_items(self) -> list[tuple[Any, Any]]:
        return super()._pytree_items()


class Mixin:
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


class Mixed(Mixin, nnx.Module):
    pass


class Open(nnx.Param):
    """A user's own type, whose instances have a `__dict__`."""


def slots_of(x: Any, storage: Any) -> dict[str, Any]:
    names = [name for name in storage.__slots__ if not name.startswith("__")]
    return {name: vars(storage)[name].__get__(x) for name in names}


@pytest.mark.parametrize("kind", [Plain, Slotted, Mixed, nnx.List, nnx.Linear])
def test_objects(kind: type) -> None:
    marks, own = {"a": True}, {"a": 1}
    (new,) = make_objects([kind], [marks], [own])
    assert type(new) is kind
    assert ObjectStorage.__dict__["__dict__"].__get__(new) is own
    alone = make_object(kind, marks)
    assert type(alone) is kind
    assert slots_of(new, ObjectStorage) == slots_of(alone, ObjectStorage)
    assert new._pytree_marks is marks and new._pytree_trace == trace.current()
    assert vars(alone) == {}


@pytest.mark.parametrize("kind", [nnx.Variable, nnx.Param, nnx.RngKey, Open])
def test_variables(kind: type) -> None:
    metadata = {"tag": 1}
    (new,) = make_variables([kind], [2.0], [metadata])
    alone = object.__new__(kind)
    fill_variable(alone, 2.0, metadata)
    assert type(new) is kind
    assert slots_of(new, VariableStorage) == slots_of(alone, VariableStorage)
    assert new._slot == 2.0 and new._metadata is metadata and new._trace == trace.current()


@pytest.mark.parametrize(
    ("storage", "make"),
    [
        (ObjectStorage, lambda kind: make_objects([kind], [{}], [{}])),
        (VariableStorage, lambda kind: make_variables([kind], [2.0], [{}])),
    ],
)
def test_no_slot_is_left_out(storage: type, make: Any) -> None:
    """The slots stand in the class, and in the loop that fills them."""
    (bare,) = make(storage)
    slots = {n for n in vars(storage) if type(vars(storage)[n]) is types.MemberDescriptorType}
    assert slots_of(bare, storage).keys() == slots


def test_kinds_may_be_mixed() -> None:
    kinds = [Plain, nnx.List, Slotted, Plain]
    owns: list[dict[str, Any]] = [{"number": i} for i in range(4)]
    made = make_objects(kinds, [{}] * 4, owns)
    assert list(map(type, made)) == kinds
    assert [x.number for x in made] == [0, 1, 2, 3]
    variables = make_variables([nnx.Param, Open, nnx.Param], range(3), [{}] * 3)
    assert [x.value for x in variables] == [0, 1, 2]


def test_what_is_made_belongs_to_the_running_trace() -> None:
    @jax.jit
    def f(x: jax.Array) -> jax.Array:
        (variable,) = make_variables([nnx.Param], [x], [{}])
        (obj,) = make_objects([Plain], [{}], [{"weight": variable}])
        obj.weight[...] += 1
        obj.more = 1
        return obj.weight[...]

    assert f(1.0) == 2.0
