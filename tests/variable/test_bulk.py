"""Many Variables at once: the same as one after the other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.variable.models import Model


def test_copies_have_metadata_of_their_own() -> None:
    m = Model(tag="x")
    copy = nnx.merge(*nnx.split(m))
    copy.a.set_metadata(tag="y")
    assert (m.a.tag, copy.a.tag) == ("x", "y")
    assert [type(x) for x in (copy.a, copy.b, copy.c)] == [nnx.Param, nnx.BatchStat, nnx.Variable]
    copy.a[...] = jnp.zeros(2)
    np.testing.assert_array_equal(m.a, [1.0, 1.0])


def _replaced(state: Any, pure: Any) -> Any:
    nnx.replace_by_pure_dict(state, pure)
    return state


def _written(write: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Returns what makes another model and writes the values of one into it."""

    def make(m: Any) -> Any:
        target = Cached()
        write(target, m)
        return target

    return make


class Cached(nnx.Module):
    def __init__(self) -> None:
        self.cache = nnx.Cache({"k": jnp.zeros(2), "deep": [(jnp.zeros(2), {"x": 1})]})
        self.w = nnx.Param(jnp.zeros(2))


COPIES: dict[str, Callable[[Any], Any]] = {
    "merge": lambda m: nnx.merge(*nnx.split(m)),
    "merge of two": lambda m: nnx.merge(*nnx.split(m, nnx.Param, ...)),
    "merge of pure": lambda m: nnx.merge(nnx.graphdef(m), nnx.to_pure_dict(nnx.state(m))),
    "merge of leaves": lambda m: nnx.merge(nnx.graphdef(m), jax.tree.leaves(nnx.state(m), is_leaf)),
    "unflatten": lambda m: nnx.graphlib.unflatten(*nnx.graphlib.flatten(m)),
    "clone": nnx.clone,
    "clone, same arrays": lambda m: nnx.clone(m, arrays=False),
    "map": lambda m: nnx.map(lambda path, x: x, m),
    "tree.map": lambda m: jax.tree.map(lambda x: x, m),
    "tree.map of Variables": lambda m: jax.tree.map(lambda x: x.copy(), m, is_leaf=is_leaf),
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "jit": lambda m: nnx.jit(nnx.clone)(m),
    "pure": lambda m: Holder(nnx.pure(nnx.state(m))["cache"]),
    "to_pure_dict": lambda m: Holder(nnx.to_pure_dict(nnx.state(m))["cache"]),
    "into a State": lambda m: _replaced(nnx.state(Cached()), nnx.as_pure(nnx.state(m))),
    "update": _written(lambda new, m: nnx.update(new, nnx.state(m))),
    "update by an object": _written(nnx.update),
    "update by both": _written(lambda new, m: nnx.update(new, *nnx.split(m, nnx.Param, ...)[1:])),
    **{
        f"Variable: {name}": (lambda m, make=make: Holder(make(m.cache)))
        for name, make in {
            "copy": lambda v: v.copy(),
            "replace": lambda v: v.replace(tag="a"),
            "replace by a Variable": lambda v: nnx.Cache(0.0).replace(v),
            "copy.copy": copy.copy,
            "constructor": nnx.Cache,
            "other type": nnx.Variable,
        }.items()
    },
    **{
        f"Variable: {name}": _written(lambda new, m, write=write: write(new.cache, m.cache))
        for name, write in {
            "copy_from": lambda new, v: new.copy_from(v),
            "set_value": lambda new, v: new.set_value(v),
            "value": lambda new, v: setattr(new, "value", v),
            "item": lambda new, v: new.__setitem__(..., v),
        }.items()
    },
}


def is_leaf(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


class Holder:
    def __init__(self, cache: Any):
        self.cache = cache if is_leaf(cache) else nnx.Cache(cache)


@pytest.mark.parametrize("name", COPIES)
def test_values_that_are_containers_are_not_shared(name: str) -> None:
    m = Cached()
    for _ in range(3):  # remembered or not
        made = COPIES[name](m)
        made.cache.value["k"] = jnp.ones(2)
        made.cache.value["deep"][0][1]["x"] = 2
        made.cache.value["deep"].append(3)
        assert m.cache.value["k"].tolist() == [0.0, 0.0]
        assert m.cache.value["deep"][0][1] == {"x": 1}
        assert len(m.cache.value["deep"]) == 1


def test_what_hands_out_a_models_own_variables_shares_them() -> None:
    m = Cached()
    nnx.state(m)["cache"].value["k"] = jnp.ones(2)
    assert m.cache.value["k"].tolist() == [1.0, 1.0]
    twin = nnx.merge(*nnx.split(m), copy=False)
    assert twin.cache is m.cache
    given = {"k": jnp.zeros(2)}
    assert nnx.Cache(given).value is given


def test_update_of_what_was_donated_and_handed_out() -> None:
    @nnx.jit
    def train(m: Model) -> None:
        m.a[...] = m.a + 1
        m.b[...] = m.b + 1

    m, other = Model(), Model(5.0)
    for model in (m, m, m, other, other):
        train(model)
    nnx.state(m)
    nnx.update(m, nnx.state(other))  # both have arrays that only the library has seen
    for _ in range(3):
        train(m)
    np.testing.assert_array_equal(other.a, np.full(2, 7.0))
    np.testing.assert_array_equal(m.a, np.full(2, 10.0))


def test_update_of_a_captured_model_is_an_error() -> None:
    m, state = Model(), nnx.state(Model(2.0))
    for _ in range(3):
        nnx.state(m)

    @jax.jit
    def write(x: Any) -> Any:
        nnx.update(m, state)
        return x

    with pytest.raises(nnx.TraceContextError, match="cannot write"):
        write(jnp.ones(1))
    np.testing.assert_array_equal(m.a, [1.0, 1.0])


def test_update_of_a_layer_of_a_stack() -> None:
    stack = nnx.Stack(lambda rngs: nnx.Linear(2, 2, rngs=rngs), 3, rngs=nnx.Rngs(0))
    layer = stack[1]
    for _ in range(3):
        nnx.state(layer)
    nnx.update(layer, {"kernel": jnp.zeros((2, 2)), "bias": jnp.ones(2)})
    np.testing.assert_array_equal(stack[1].kernel, np.zeros((2, 2)))
    np.testing.assert_array_equal(stack[1].bias, np.ones(2))
    assert float(jnp.abs(stack[0].kernel[...]).sum()) > 0
