"""What an attribute holds, decided by looking at it."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import logging
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weft as nnx
from weft._object import kinds
from weft._object.kinds import Kind, holds_data, kind_of


class Pair(NamedTuple):
    a: Any
    b: Any


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
    def __init__(self, held: Any = None):
        self.held = held


class Called(Unknown):
    def __call__(self) -> None:
        pass


class Color(enum.Enum):
    RED = ()


class Partial(functools.partial):
    pass


@dataclasses.dataclass
class Plain:
    x: Any


class Affine(Plain):
    def __call__(self) -> None:
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
    "object": (Unknown(), Kind.INSTANCE, False),
    "object with a Module": (Unknown(MODULE), Kind.INSTANCE, True),
    "object with a list of Modules": (Unknown([{"a": MODULE}]), Kind.INSTANCE, True),
    "object with an array": (Unknown(ARRAY), Kind.INSTANCE, False),
    "object in an object": (Unknown(Unknown(MODULE)), Kind.INSTANCE, True),
    "callable": (Called(MODULE), Kind.STATIC, False),
    "enum": (Color.RED, Kind.STATIC, False),
    "module": (functools, Kind.STATIC, False),
    "logger": (logging.getLogger("weft"), Kind.STATIC, False),
    "dataclass": (Plain(1), Kind.INSTANCE, False),
    "dataclass with an array": (Plain(ARRAY), Kind.INSTANCE, True),
    "dataclass with a Module": (Plain([MODULE]), Kind.INSTANCE, True),
    "callable dataclass with an array": (Affine(ARRAY), Kind.INSTANCE, False),
    "callable dataclass with a Module": (Affine(MODULE), Kind.INSTANCE, True),
    "dtype": (jnp.float32, Kind.STATIC, False),
    "spec": (jax.sharding.PartitionSpec("a"), Kind.STATIC, False),
    "frozenset": (frozenset({1}), Kind.STATIC, False),
    "frozenset of Modules": (frozenset({MODULE}), Kind.STATIC, True),
    "jax array": (ARRAY, Kind.ARRAY, True),
    "numpy array": (np.zeros(2), Kind.ARRAY, True),
    "bfloat16": (np.zeros(2, jnp.bfloat16), Kind.ARRAY, True),
    "bools": (np.zeros(2, bool), Kind.ARRAY, True),
    "texts": (np.array(["a"]), Kind.STATIC, False),
    "bytes": (np.array([b"a"]), Kind.STATIC, False),
    "dates": (np.array(["2020-01-01"], "datetime64[D]"), Kind.STATIC, False),
    "durations": (np.zeros(2, "timedelta64[s]"), Kind.STATIC, False),
    "records": (np.zeros(2, [("a", int)]), Kind.STATIC, False),
    "void": (np.zeros(2, "V4"), Kind.STATIC, False),
    "objects": (np.array([None, 1]), Kind.STATIC, False),
    "objects with a Module": (np.array([None, MODULE]), Kind.STATIC, True),
    "objects with an array": (np.array([None, ARRAY], dtype=object), Kind.STATIC, False),
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
    "deque": (collections.deque([ARRAY]), Kind.NODE, True),
    "namespace": (types.SimpleNamespace(a=ARRAY), Kind.NODE, True),
    "UserDict": (collections.UserDict(a=ARRAY), Kind.NODE, True),
    "Counter": (collections.Counter("a"), Kind.NODE, False),
    "own attribute of a list": (Chain([1]), Kind.NODE, False),
    "set": ({1}, Kind.NODE, False),
    "set of Modules": ({MODULE}, Kind.NODE, True),
    "tuple": ((1, 2), Kind.VALUE, False),
    "tuple of arrays": ((1, ARRAY), Kind.VALUE, True),
    "named tuple": (Pair(1, ARRAY), Kind.VALUE, True),
    "own tuple": (Shape((ARRAY,)), Kind.VALUE, True),
    "mappingproxy": (types.MappingProxyType({"a": ARRAY}), Kind.VALUE, True),
    "partial": (functools.partial(jnp.sum, axis=0), Kind.BOUND, False),
    "partial with data": (functools.partial(jnp.dot, ARRAY), Kind.BOUND, False),
    "own partial": (Partial(jnp.dot, ARRAY), Kind.BOUND, False),
    "method of a Module": (MODULE.__call__, Kind.BOUND, False),
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

    assert kind_of(Late(ARRAY)) is Kind.INSTANCE
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


def test_declared_data_types_that_jax_knows() -> None:
    @nnx.register_data_type
    class Late:
        def __init__(self, x: Any):
            self.x = x

    assert kind_of(Late(ARRAY)) is Kind.ARRAY
    jax.tree_util.register_pytree_node(Late, lambda v: ((v.x,), None), lambda _, c: Late(*c))
    assert kind_of(Late(ARRAY)) is Kind.FOREIGN
    assert kind_of(Chain()) is Kind.NODE
    nnx.register_data_type(Chain)
    assert kind_of(Chain()) is Kind.ARRAY
    kinds._DATA_TYPES.remove(Chain)
    kinds._UNREGISTERED.pop(Chain)
    nnx.register_data_type(Known)
    assert kind_of(Known(ARRAY)) is Kind.FOREIGN
    assert (nnx.is_data(Known(ARRAY)), nnx.is_data(Known(1))) == (True, False)


class Asked(dict):
    """Notes what it is asked for."""

    def __getattr__(self, name: str) -> Any:
        ASKED.append(name)
        raise KeyError(name)


ASKED: list[str] = []


def test_an_instance_is_not_asked_what_it_is() -> None:
    model = nnx.Dict(config=Asked(a=1), more=[Asked(w=nnx.Param(jnp.ones(2)))])
    for use in (nnx.split, nnx.state, nnx.clone, jax.tree.leaves, nnx.jit(lambda m: m), repr):
        use(model)
    for filter in (nnx.Param, "a", nnx.WithTag("x"), lambda path, value: True):
        nnx.state(model, filter)
    jax.tree.map(lambda x: x, model)
    nnx.pop(model, nnx.Param)
    assert not ASKED


def test_what_is_far_inside_of_an_object_is_not_looked_for() -> None:
    near, far = Unknown([*range(10), MODULE]), Unknown([*map(str, range(10**4)), MODULE])
    assert holds_data(near)
    assert not holds_data(far)
    assert holds_data([*map(str, range(10**4)), MODULE])


def test_where_data_is_hidden() -> None:
    path, found = kinds.path_to_data(Unknown([1, Unknown(MODULE)]))
    assert (path, found) == (("held", 1, "held"), MODULE)
    path, found = kinds.path_to_data(Unknown({"a": ARRAY}))
    assert path == ("held", "a") and found is ARRAY
    assert kinds.hides_data(Unknown([ARRAY])) and not kinds.hides_data(Plain([ARRAY]))
    assert not kinds.hides_data(Unknown([1]))


def test_arrays_alone() -> None:
    for value in (
        ARRAY,
        [1, (ARRAY,)],
        Unknown([ARRAY]),
        Plain(ARRAY),
        functools.partial(len, ARRAY),
    ):
        assert kinds.holds_arrays(value)
    for value in (1, [MODULE], nnx.Param(ARRAY), Unknown(MODULE), MODULE.__call__, len, {1: "a"}):
        assert not kinds.holds_arrays(value)


def test_what_holds_itself() -> None:
    own: list[Any] = [1]
    own.append(own)
    loop = Unknown()
    loop.held = {"me": loop, "list": own}
    assert not holds_data(own) and not holds_data(loop)
    own.append(MODULE)
    assert holds_data(own) and holds_data(loop)


def test_what_callables_are_bound_to() -> None:
    other = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    partial = functools.partial(MODULE.__call__, 1, k=functools.partial(other, [other]))
    assert kinds.bound_objects(partial) == [MODULE, other]
    assert kinds.bound_objects(other.iter_modules) == [other]
    assert kinds.bound_objects(other) == kinds.bound_objects(jnp.sin) == []


def test_children() -> None:
    assert kinds.children_of([1, 2], Kind.NODE) == [1, 2]
    assert kinds.children_of(Pair(1, 2), Kind.VALUE) == [1, 2]
    assert dict(kinds.items_in(Plain(1), Kind.INSTANCE)) == {"x": 1}
    assert dict(kinds.items_in(Known(1), Kind.FOREIGN)) == {"x": 1}
    assert [*kinds.items_in(frozenset({"a"}), Kind.STATIC)] == [(0, "a")]


def test_keys_of_foreign_pytrees() -> None:
    assert kinds.split_foreign(Known(1))[0] == ("x",)
    assert kinds.split_foreign(nnx.State({"b": 1, 0: 2}))[0] == (0, "b")
    assert kinds.split_foreign(Known(None))[1] == (None,)
