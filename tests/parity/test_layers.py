"""Layers against the peer: same seed, same calls, same bits.

For every case of the table: the Variables of the new layer, the outputs, the gradients of
parameters and inputs, and the Variables after the call; eager against eager and compiled against
compiled.
"""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft
from tests.parity.cases import Case

flax_nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

FUSIONS = "xla_cpu_use_fusion_emitters"
OPTIONS = {FUSIONS: True} if FUSIONS in os.environ.get("XLA_FLAGS", "") else {}
"""Whatever makes the tests compile quickly: equal programs are compared as users compile them."""


def _table() -> list[Any]:
    rows = []
    for file in sorted((Path(__file__).parent / "cases").glob("[!_]*.py")):
        module = importlib.import_module(f"tests.parity.cases.{file.stem}")
        rows += [pytest.param(case, id=f"{file.stem}: {case.name}") for case in module.CASES]
    return rows


@pytest.mark.parametrize("case", _table())
def test_same_bits(case: Case) -> None:
    with jax.numpy_dtype_promotion("standard"):  # the peer promotes implicitly
        expected = run(flax_nnx, case)
    found = run(weft, case)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        if case.tolerance:
            ours, theirs = found[path].astype(np.float64), value.astype(np.float64)
            error = case.tolerance * np.abs(theirs).max(initial=0.0)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=error, err_msg=path)
            continue
        assert found[path].dtype == value.dtype, path
        if found[path].tobytes() != value.tobytes():
            np.testing.assert_array_equal(found[path].astype(np.float64), value, err_msg=path)
            raise AssertionError(f"{path}: other zeros or NaNs, {found[path]} against {value}")


def run(nnx: Any, case: Case) -> dict[str, np.ndarray]:
    """Makes a case's layer and calls it twice; returns everything that has bits."""
    layer = case.make(nnx, nnx.Rngs(0, params=1, dropout=2))
    if not isinstance(layer, nnx.Module):
        layer = _as_module(nnx, layer)
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def step(params: Any, rest: Any, inputs: tuple[Any, ...]) -> Any:
        def forward(params: Any, differentiated: dict[int, Any]) -> Any:
            # New Variables, because the peer's merge would write to those of `rest` itself.
            copied = jax.tree.map(lambda leaf: leaf, rest)
            layer = nnx.merge(graphdef, params, copied)
            arguments = [differentiated.get(i, x) for i, x in enumerate(inputs)]
            outputs = getattr(layer, case.method)(*arguments, **case.call)
            return outputs, nnx.state(layer)

        floats = {i: x for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.inexact)}
        outputs, pullback, state = jax.vjp(forward, params, floats, has_aux=True)
        random = np.random.default_rng(1)
        cotangents = jax.tree.map(
            lambda y: (
                jnp.asarray(random.normal(size=y.shape), y.dtype)
                if jnp.issubdtype(y.dtype, jnp.inexact)
                else np.zeros(y.shape, jax.dtypes.float0)
            ),
            outputs,
        )
        return outputs, state, pullback(cotangents)

    bits = _bits_of_state(nnx, params, "made") | _bits_of_state(nnx, rest, "made")
    for how, transform in (
        ("eager", lambda f: f),
        ("jit", functools.partial(jax.jit, compiler_options=OPTIONS)),
    ):
        outputs, state, gradients = transform(step)(params, rest, case.arrays())
        bits |= _bits_of_state(nnx, state, f"{how}: state after the call")
        bits |= _bits_of_state(nnx, gradients[0], f"{how}: gradient of parameters")
        bits |= _bits_of_tree(outputs, f"{how}: outputs")
        bits |= _bits_of_tree(gradients[1], f"{how}: gradient of inputs")
    return bits


def _as_module(nnx: Any, function: Any) -> Any:
    class Called(nnx.Module):
        def __call__(self, *args: Any) -> Any:
            return function(*args)

    return Called()


def _bits_of_state(nnx: Any, state: Any, prefix: str) -> dict[str, np.ndarray]:
    variables = [(path, v) for path, v in nnx.to_flat_state(state) if isinstance(v, nnx.Variable)]
    return {f"{prefix} {path} {type(v).__name__}": _bits(v.get_value()) for path, v in variables}


def _bits_of_tree(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {f"{prefix}{jax.tree_util.keystr(path)}": _bits(leaf) for path, leaf in leaves}


def _bits(value: Any) -> np.ndarray:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value)
