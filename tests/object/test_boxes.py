"""Boxes: what JAX sees of what an attribute holds."""

from __future__ import annotations

import collections
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from tests.laws.attribute_values import AttrDict, Chain, Pair, Plain, Sized, Stats, Twins, contents
from weft._core.static import Static
from weft._object.boxes import Packed, attach, box, detach, unbox

ARRAY = jnp.ones(2)

# what an attribute holds, and what JAX sees of it
BOXES: dict[str, tuple[Any, Any]] = {
    "array": (ARRAY, ARRAY),
    "None": (None, None),
    "number": (1, Static(1)),
    "static list": ([1], Static([1])),
    "list": ([1, ARRAY, None], [Static(1), ARRAY, None]),
    "dict": ({"b": ARRAY, "a": [1]}, {"b": ARRAY, "a": Static([1])}),
    "tuple": ((ARRAY, "x"), (ARRAY, Static("x"))),
    "named tuple": (Pair(ARRAY, "x"), Pair(ARRAY, Static("x"))),
    "OrderedDict": (
        collections.OrderedDict(b=ARRAY, a=1),
        collections.OrderedDict(b=ARRAY, a=Static(1)),
    ),
    "callable": ([ARRAY, jnp.sin], [ARRAY, Static(jnp.sin)]),
}


@pytest.mark.parametrize("name", BOXES)
def test_known_to_jax(name: str) -> None:
    value, expected = BOXES[name]
    boxed = box(value, (), "")
    assert jax.tree.structure(boxed) == jax.tree.structure(expected)
    assert contents(boxed) == contents(expected)
    assert contents(unbox(boxed)) == contents(value)


PACKED: dict[str, tuple[Any, list[str]]] = {
    "dict of ints": ({2: ARRAY, 10: [1, ARRAY]}, ["[2]", "[10][1]"]),
    "dict of mixed keys": ({2: ARRAY, "b": 1, (1, None): ARRAY}, ["[2]", "[(1, None)]"]),
    "deque": (collections.deque([ARRAY, 1, ARRAY], 5), ["[0]", "[2]"]),
    "namespace": (types.SimpleNamespace(w=ARRAY, n=1), [".w"]),
    "AttrDict": (AttrDict(w=ARRAY, n=[1, ARRAY]), ["['w']", "['n'][1]"]),
    "Chain": (Chain("c", [1, ARRAY]), ["[1]"]),
    "dataclass": (Stats(ARRAY), [".mean"]),
    "mappingproxy": (types.MappingProxyType({"b": ARRAY, 1: ARRAY}), ["['b']", "[1]"]),
    "Sized": (Sized(1, ARRAY, unit="m"), ["[1]"]),
    "Twins": (Twins(ARRAY), [".left", ".right"]),
}


@pytest.mark.parametrize("name", PACKED)
def test_unknown_to_jax(name: str) -> None:
    value, paths = PACKED[name]
    boxed = box(value, (), "")
    assert type(boxed) is Packed
    found = jax.tree_util.tree_leaves_with_path(boxed)
    assert [jax.tree_util.keystr(path) for path, _ in found] == paths
    back = unbox(jax.tree.map(lambda x: x, boxed))
    assert type(back) is type(value)
    assert contents(back) == contents(value)
    assert hash(jax.tree.structure(boxed)) == hash(jax.tree.structure(box(value, (), "")))
    assert jax.tree.leaves(jax.tree.map(lambda x: None, boxed)) == []


def test_dicts_have_one_order() -> None:
    for keys in ((10, 2), ("b", 2, (1, None)), (1.5, 0)):
        boxes = [box(dict.fromkeys(order, ARRAY), (), "") for order in (keys, keys[::-1])]
        assert jax.tree.structure(boxes[0]) == jax.tree.structure(boxes[1])


def test_containers_in_themselves() -> None:
    own: list[Any] = [ARRAY]
    own.append({"me": own})
    with pytest.raises(
        nnx.CycleError, match=r"Dict\.own\[1\]\.me is a list that it is in: a cycle"
    ):
        jax.tree.leaves(nnx.Dict(own=own))
    assert nnx.clone(nnx.Dict(own=own)).own[1]["me"] is not own


def test_hidden_data() -> None:
    for value, found in (
        ([{nnx.List()}], r"Net\.x\[0\] is a set that holds"),
        ((frozenset({nnx.List()}),), r"Net\.x\[0\] is a set that holds"),
        (Plain(a=nnx.List()), r"Net\.x is a Plain that holds a List, at `Plain\.a`"),
    ):
        with pytest.raises(nnx.StructureError, match=found):
            box(value, ("x",), "Net")


def test_methods_of_an_object() -> None:
    a, b = nnx.Dict(), nnx.Dict()
    partial = functools.partial(a.iter_modules, b, k=a.train)
    taken = detach(partial, a)
    assert a not in taken.parts
    new = attach(taken, b)
    assert (new.func.__self__, new.args, new.keywords["k"].__self__) == (b, (b,), b)
    for other in (b.train, len, 1):
        assert detach(other, a) is other
        assert attach(other, a) is other
