"""Every layer under JAX's debugging modes: no key twice, no tracer that gets out, no NaN.

Dtype promotion is strict, as everywhere in these tests. The transforms under the modes:
`test_random_keys.py` and `tests/lift`.
"""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from tests.parity.cases import Layer

CASES = {
    f"{file.stem}: {case.name}": case
    for file in sorted(Path(__file__).parents[1].glob("parity/cases/[!_]*.py"))
    for case in importlib.import_module(f"tests.parity.cases.{file.stem}").CASES
    if isinstance(case.make, Layer)
}


def loss(module, case, arrays):
    outputs = getattr(module, case.method)(*arrays, **case.call)
    floats = [x for x in jax.tree.leaves(outputs) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return sum((jnp.sum(jnp.abs(x).astype(jnp.float32)) for x in floats), jnp.float32(0))


def is_key(x):
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("name", CASES)
def test_layer(name):
    case = CASES[name]
    with jax.checking_leaks(), jax.debug_key_reuse(True), jax.debug_nans(True):
        module = case.make(nnx, nnx.Rngs(0, params=1, dropout=2))
        step = nnx.jit(nnx.value_and_grad(lambda module, arrays: loss(module, case, arrays)))
        value, grads = step(module, case.arrays())
        if not any(map(is_key, case.call.values())):  # a key of the caller's is used up
            value, grads = step(module, case.arrays())
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_the_modes_find_what_they_are_for():
    def twice(key):
        return jax.random.normal(key) + jax.random.normal(key)

    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(twice)(jax.random.key(0))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        jax.jit(jnp.log)(-1.0)
