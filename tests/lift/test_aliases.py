"""Aliases: no array that a user holds is overwritten, whatever way it was handed out."""

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
from tests.devices import on_cpu
from tests.lift.donated import Model, add, is_donated, read, step, trained


def closure_of(array: Any) -> Callable[[], Any]:
    return jax.jit(lambda: array * 1)


def with_hook(m: Model) -> Any:
    m.w.set_metadata(on_get_value=lambda v, x: x)
    value = m.w.value
    m.w.del_metadata("on_get_value")
    return value


def in_a_trace(m: Model) -> Callable[[], Any]:
    jitted = jax.jit(lambda x: read(m) * x)
    jitted(jnp.ones(()))
    return lambda: jitted(jnp.ones(()))


def pullback(m: Model) -> Callable[[], Any]:
    scaled = nnx.jit(lambda m, x: m.w * x)
    _, pull = jax.vjp(lambda x: scaled(m, x), jnp.ones(4))
    return lambda: pull(jnp.ones(4))[0]


def pullback_of_objects(m: Model) -> Callable[[], Any]:
    _, pull = nnx.vjp(lambda m, x: m.w * x, m, jnp.ones(4))
    return lambda: pull(jnp.ones(4))[1]


def without_compiling(m: Model) -> Any:
    with jax.disable_jit():
        return read(m)


def as_global_array(m: Model) -> Any:
    array = m.w[...]
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, [array])


ALIASES: dict[str, Callable[[Model], Any]] = {
    "value": lambda m: m.w.value,
    "index": lambda m: m.w[...],
    "raw value": lambda m: m.w.get_raw_value(),
    "asarray": lambda m: jnp.asarray(m.w),
    "hook": with_hook,
    "device_put": lambda m: jax.device_put(m.w.value),
    "device_put to its sharding": lambda m: jax.device_put(m.w.value, m.w.sharding),
    "addressable_data": lambda m: m.w.value.addressable_data(0),
    "addressable_shards": lambda m: m.w.value.addressable_shards[0].data,
    "make_array_from_single_device_arrays": as_global_array,
    "key_data": lambda m: jax.random.key_data(m.key.value),
    "typed key": lambda m: m.key.value,
    "wrap_key_data": lambda m: jax.random.wrap_key_data(m.raw_key.value),
    "numpy": lambda m: np.asarray(m.w.value),
    "numpy of the Variable": lambda m: np.asarray(m.w),
    "dlpack": lambda m: np.from_dlpack(on_cpu(m.w.value)),
    "dlpack to jax": lambda m: jnp.from_dlpack(m.w.value),
    "memoryview": lambda m: memoryview(np.asarray(m.w.value)),
    "State": lambda m: jax.tree.leaves(nnx.state(m, nnx.Param)),
    "pure dict": lambda m: nnx.to_pure_dict(nnx.state(m, nnx.Param)),
    "pure": lambda m: nnx.pure(nnx.state(m, nnx.Param)),
    "clone": lambda m: nnx.clone(m).w[...],
    "clone of the same arrays": lambda m: nnx.clone(m, arrays=False).w[...],
    "merge": lambda m: nnx.merge(*nnx.split(m)).w[...],
    "tree leaf": lambda m: jax.tree.leaves(m),
    "tree map": lambda m: jax.tree.map(lambda x: x, m).w[...],
    "copy of the Variable": lambda m: m.w.copy().value,
    "another Variable": lambda m: nnx.Param(m.w).value,
    "copy": lambda m: copy.copy(m.w).value,
    "deepcopy": lambda m: copy.deepcopy(m).w[...],
    "pickle": lambda m: pickle.loads(pickle.dumps(m)).w[...],
    "closure": lambda m: closure_of(m.w[...]),
    "returned": read,
    "returned without compiling": without_compiling,
    "constant of a trace": in_a_trace,
    "pullback": pullback,
    "pullback of objects": pullback_of_objects,
    "plan-less transform": lambda m: nnx.cond(True, lambda m: m.w[...], lambda m: m.w[...], m),
    "remat": lambda m: nnx.remat(lambda m: m.w[...])(m),
    "explicitly donated elsewhere": lambda m: nnx.jit(lambda m: m.w[...], donate_argnums=0)(m),
}


def values(held: Any) -> list[np.ndarray]:
    """Copies all that is in what a user holds."""

    def value(x: Any) -> np.ndarray:
        if callable(x):
            x = x()
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        return np.array(x)

    return [value(x) for x in jax.tree.leaves(held)]


@pytest.mark.parametrize("name", ALIASES)
def test_aliases_are_alive_and_unchanged(name: str) -> None:
    m = trained()
    held = ALIASES[name](m)
    before = values(held)
    for _ in range(3):
        step(m)
        add(m, jnp.ones(4))
    for now, then in zip(values(held), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert is_donated(lambda: step(m), m.w)
