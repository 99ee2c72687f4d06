"""Random object graphs for property tests, and what it means that two of them are the same."""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import weft as nnx


class Box(nnx.Module):
    def __init__(self, **attributes: Any):
        for name, value in attributes.items():
            setattr(self, name, value)


class Pair(NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_pytree_with_keys_class
class Foreign:
    def __init__(self, x: Any, label: Any = None):
        self.x, self.label = x, label

    def tree_flatten_with_keys(self) -> Any:
        return [(jax.tree_util.GetAttrKey("x"), self.x)], self.label

    def tree_flatten(self) -> Any:
        return (self.x,), self.label

    @classmethod
    def tree_unflatten(cls, label: Any, children: Any) -> Foreign:
        (x,) = children
        return cls(x, label)


ARRAYS = [jnp.arange(2.0), jnp.ones((1, 2)), np.arange(3), jnp.array(True), jax.random.key(0)]
STATICS = [None, 0, True, 1.5, float("nan"), "text", (1, "a"), frozenset({1}), jnp.sin]
NAMES = ["a", "b", "items", "w10", "w9"]
KINDS = [nnx.Param, nnx.BatchStat, nnx.Variable]


@st.composite
def graphs(draw: Any) -> Any:
    """One object with everything below it: sharing, cycles, containers, statics."""
    made: list[Any] = []  # what can be met again

    def remember(value: Any) -> Any:
        made.append(value)
        return value

    def variable() -> Any:
        kind = draw(st.sampled_from(KINDS))
        raw = draw(st.sampled_from([*ARRAYS, 2.5, {"p": ARRAYS[0], "q": (1,)}, None]))
        metadata = draw(st.sampled_from([{}, {"tag": "x"}, {"n": [1], "tag": "y"}]))
        return remember(kind(raw, **metadata))

    def named(depth: int) -> dict[str, Any]:
        names = draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
        return {name: value(depth - 1) for name in names}

    def several(depth: int) -> list[Any]:
        return [value(depth - 1) for _ in range(draw(st.integers(0, 3)))]

    def box(depth: int) -> Any:
        new = remember(Box())  # known before it is filled: what is below may refer to it
        for name, held in named(depth).items():
            marks = [lambda x: x]
            if isinstance(held, (bool, int, float)):
                marks.append(nnx.data)
            setattr(new, name, draw(st.sampled_from(marks))(held))
        return new

    def listed(depth: int) -> Any:
        new = remember([])
        new.extend(several(depth))
        return new

    def mapped(depth: int) -> Any:
        new = remember(draw(st.sampled_from([dict, collections.OrderedDict]))())
        new.update(named(depth))
        if draw(st.booleans()):
            new[0] = value(depth - 1)
        return new

    def value(depth: int) -> Any:
        leaves = {
            "array": lambda: draw(st.sampled_from(ARRAYS)),
            "static": lambda: draw(st.sampled_from(STATICS)),
            "variable": variable,
        }
        nested = {
            "box": lambda: box(depth),
            "list": lambda: listed(depth),
            "dict": lambda: mapped(depth),
            "set": lambda: remember({1, "a"}),
            "tuple": lambda: tuple(several(depth)),
            "pair": lambda: Pair(value(depth - 1), value(depth - 1)),
            "foreign": lambda: Foreign(value(depth - 1), "label"),
            "List": lambda: remember(nnx.List(several(depth))),
            "Dict": lambda: remember(nnx.Dict(named(depth))),
        }
        choices = leaves if depth <= 0 else leaves | nested
        names = [*choices, *(["again"] * 3 if made else [])]
        name = draw(st.sampled_from(names))
        return draw(st.sampled_from(made)) if name == "again" else choices[name]()

    return box(draw(st.integers(1, 4)))


def same_array(a: Any, b: Any) -> bool:
    if getattr(a, "dtype", None) != getattr(b, "dtype", None):
        return False
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.array_equal(a, b)


def check_same(a: Any, b: Any, identical: bool = False, seen: dict[int, Any] | None = None) -> None:
    """Asserts that two graphs have one shape; with `identical`, also the very same arrays.

    Written apart from the library's own walk on purpose. Whatever is mutable must correspond one
    to one: what was shared is shared, what was not is not.
    """
    seen = {} if seen is None else seen
    assert type(a) is type(b), (a, b)
    mutable = (nnx.Pytree, nnx.Variable, list, dict, set)
    if isinstance(a, mutable):
        if id(a) in seen:
            assert seen[id(a)] is b
            return
        assert a is not b
        assert all(b is not other for other in seen.values())
        seen[id(a)] = b
    if isinstance(a, nnx.Variable):
        assert repr(a.get_metadata()) == repr(b.get_metadata())
        leaves, treedef = jax.tree.flatten(a.get_raw_value())
        others, other_treedef = jax.tree.flatten(b.get_raw_value())
        assert treedef == other_treedef
        for x, y in zip(leaves, others, strict=True):
            check_same(x, y, identical, seen)
    elif isinstance(a, (nnx.List, list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            check_same(x, y, identical, seen)
    elif isinstance(a, (nnx.Dict, dict)):
        assert list(a) == list(b)
        for key in a:
            check_same(a[key], b[key], identical, seen)
    elif isinstance(a, nnx.Pytree):
        assert a._pytree_marks == b._pytree_marks
        assert sorted(vars(a)) == sorted(vars(b))
        for name in vars(a):
            check_same(vars(a)[name], vars(b)[name], identical, seen)
    elif isinstance(a, Foreign):
        check_same((a.x, a.label), (b.x, b.label), identical, seen)
    elif isinstance(a, (jax.Array, np.ndarray)):
        assert same_array(a, b)
        assert (a is b) or not identical
    else:
        assert a is b or a == b


def buffers(graph: Any) -> set[int]:
    """Addresses of all array memory below an object."""
    found = set()
    for _, leaf in nnx.to_flat_state(nnx.split(graph)[1]):
        for x in jax.tree.leaves(leaf):
            if isinstance(x, np.ndarray):
                found.add(x.ctypes.data)
            elif isinstance(x, jax.Array):
                is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
                found.add((jax.random.key_data(x) if is_key else x).unsafe_buffer_pointer())
    return found
