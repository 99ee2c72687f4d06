"""What an attribute holds, decided by looking at it."""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft._module import kinds
from weft._module.kinds import Kind, holds_data, kind_of


class Pair(NamedTuple):
    a: Any
    b: Any


class Checked(Pair):
    """A named tuple whose constructor takes no second look at finished parts."""

    def __new__(cls, a: Any) -> Any:
        return super().__new__(cls, a, a)


class Shape(tuple):
    """A tuple that JAX takes for a leaf."""


@jax.tree_util.register_pytree_node_class
class Labelled(tuple):
    """A tuple that JAX knows by other rules."""

    def tree_flatten(self) -> Any:
        return (self[0],), self[1]

    @classmethod
    def tree_unflatten(cls, label: Any, children: Any) -> Any:
        return cls((*children, label))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Known:
    x: Any


class Unknown:
    pass


class Chain(list):
    pass


MODULE = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
ARRAY = jnp.ones(2)

# value, its kind, whether it holds data
VALUES: dict[str, tuple[Any, Kind, bool]] = {
    "None": (None, Kind.STATIC, False),
    "int": (1, Kind.STATIC, False),
    "str": ("relu", Kind.STATIC, False),
    "numpy number": (np.float32(1.0), Kind.STATIC, False),
    "function": (jnp.sin, Kind.STATIC, False),
    "lambda": (lambda: 0, Kind.STATIC, False),
    "type": (int, Kind.STATIC, False),
    "object": (Unknown(), Kind.STATIC, False),
    "dtype": (jnp.float32, Kind.STATIC, False),
    "spec": (jax.sharding.PartitionSpec("a"), Kind.STATIC, False),
    "frozenset": (frozenset({1}), Kind.STATIC, False),
    "frozenset of Modules": (frozenset({MODULE}), Kind.STATIC, True),
    "jax array": (ARRAY, Kind.ARRAY, True),
    "numpy array": (np.zeros(2), Kind.ARRAY, True),
    "key": (jax.random.key(0), Kind.ARRAY, True),
    "abstract": (jax.ShapeDtypeStruct((), jnp.float32), Kind.ARRAY, True),
    "Variable": (nnx.Param(1.0), Kind.VARIABLE, True),
    "Module": (MODULE, Kind.OBJECT, True),
    "List": (nnx.List(), Kind.OBJECT, True),
    "list": ([1, "a"], Kind.NODE, False),
    "list of arrays": ([1, ARRAY], Kind.NODE, True),
    "own list": (Chain([ARRAY]), Kind.NODE, True),
    "dict": ({"a": 1}, Kind.NODE, False),
    "dict of Modules": ({"a": {"b": (MODULE,)}}, Kind.NODE, True),
    "defaultdict": (collections.defaultdict(list, a=[ARRAY]), Kind.NODE, True),
    "OrderedDict": (collections.OrderedDict(a=ARRAY), Kind.NODE, True),
    "set": ({1}, Kind.NODE, False),
    "set of Modules": ({MODULE}, Kind.NODE, True),
    "tuple": ((1, 2), Kind.VALUE, False),
    "tuple of arrays": ((1, ARRAY), Kind.VALUE, True),
    "named tuple": (Pair(1, ARRAY), Kind.VALUE, True),
    "own tuple": (Shape((ARRAY,)), Kind.VALUE, True),
    "partial": (functools.partial(jnp.sum, axis=0), Kind.VALUE, False),
    "partial with data": (functools.partial(jnp.dot, ARRAY), Kind.VALUE, True),
    "method of a Module": (MODULE.__call__, Kind.VALUE, True),
    "method": ("a".join, Kind.STATIC, False),
    "registered dataclass": (Known(ARRAY), Kind.FOREIGN, True),
    "registered dataclass without data": (Known(1), Kind.FOREIGN, False),
    "registered tuple": (Labelled((ARRAY, "x")), Kind.FOREIGN, True),
    "Partial": (jax.tree_util.Partial(jnp.dot, ARRAY), Kind.FOREIGN, True),
    "State": (nnx.State({"a": ARRAY}), Kind.FOREIGN, True),
    "GraphDef": (nnx.graphdef(MODULE), Kind.FOREIGN, False),
    "optax transformation": (optax.adam(0.1), Kind.VALUE, False),
}


@pytest.mark.parametrize("name", VALUES)
def test_kinds(name: str) -> None:
    value, kind, is_data = VALUES[name]
    assert kind_of(value) is kind
    assert holds_data(value) is is_data
    assert nnx.is_data(value) is is_data
    assert nnx.has_data(value) is is_data


def test_tracers_are_arrays() -> None:
    seen = []

    def look(x: Any) -> Any:
        seen.append((kind_of(x), holds_data([x])))
        return x.sum()

    jax.jit(look)(ARRAY)
    jax.grad(look)(ARRAY)
    jax.vmap(look)(jnp.ones((2, 2)))
    jax.linearize(look, ARRAY)
    assert set(seen) == {(Kind.ARRAY, True)}


def test_a_class_registered_late_is_found() -> None:
    class Late:
        def __init__(self, x: Any):
            self.x = x

    assert kind_of(Late(ARRAY)) is Kind.STATIC
    jax.tree_util.register_pytree_node(Late, lambda v: ((v.x,), None), lambda _, c: Late(*c))
    assert kind_of(Late(ARRAY)) is Kind.FOREIGN


def test_declared_data_types() -> None:
    @nnx.register_data_type
    class Handle:
        pass

    handle = Handle()
    assert kind_of(handle) is Kind.ARRAY
    state = nnx.state(nnx.Dict(h=handle))
    assert state["h"] is handle


@pytest.mark.parametrize("name", VALUES)
def test_taken_apart_and_put_together(name: str) -> None:
    value, kind, _ = VALUES[name]
    if kind is Kind.NODE:
        handler = kinds.node_type(type(value))
        new = handler.blank(value)
        handler.replace(new, handler.items(value))
        assert type(new) is type(value)
        assert new == value
    elif kind is Kind.VALUE:
        how = kinds.value_type(type(value))
        keys, parts = how.split(value)
        assert len(keys) == len(parts)
        new = how.join(type(value), parts)
        assert type(new) is type(value)
        assert how.split(new) == (keys, parts) or not parts
    elif kind is Kind.FOREIGN:
        keys, parts, treedef = kinds.split_foreign(value)
        assert len(keys) == len(parts)
        assert type(jax.tree.unflatten(treedef, parts)) is type(value)


def test_named_tuples_are_joined_without_their_constructor() -> None:
    pair = Checked(1)
    how = kinds.value_type(Checked)
    assert how.split(pair) == (("a", "b"), (1, 1))
    assert how.join(Checked, (1, 2)) == (1, 2)


def test_keys_of_foreign_pytrees() -> None:
    assert kinds.split_foreign(Known(1))[0] == ("x",)
    assert kinds.split_foreign(nnx.State({"b": 1, 0: 2}))[0] == (0, "b")
    assert kinds.split_foreign(Known(None))[1] == (None,)


def test_a_defaultdict_keeps_its_factory() -> None:
    model = nnx.Dict(d=collections.defaultdict(list, a=[nnx.Param(1.0)]))
    assert nnx.clone(model).d["new"] == []
    assert nnx.clone(model)["d"]["a"][0].value == 1.0
