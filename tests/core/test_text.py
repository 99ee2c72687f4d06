"""Sizes, dtypes and arrays in words."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import weft as nnx
from tests.devices import devices
from weft._core.text import array_text, count_text, dtype_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (jnp.float32(2.5), "f32[] 2.5"),
        (np.arange(3), "i64[3] [0, 1, 2]"),
        (jnp.zeros((2, 2), jnp.bfloat16), "bf16[2,2] [[0, 0], [0, 0]]"),
        (jnp.zeros(9), "f32[9]"),
        (jnp.array([True, False]), "bool[2] [ True, False]"),
        (jax.ShapeDtypeStruct((2, 3), jnp.int8), "i8[2,3]"),
        (jax.random.key(0), "key<fry>[]"),
        (np.zeros(2, np.uint8), "u8[2] [0, 0]"),
        (np.zeros(1, np.complex64), "c64[1] [0.+0.j]"),
    ],
    ids=str,
)
def test_arrays(value: Any, text: str) -> None:
    assert array_text(value) == text
    assert repr(nnx.Param(value)) == f"Param({text})"


def test_dtypes() -> None:
    assert dtype_text(jnp.float8_e4m3fn.dtype) == "f8_e4m3fn"
    assert dtype_text(jnp.dtype("float64")) == "f64"


def test_arrays_without_numbers() -> None:
    deleted = jnp.ones(2) + 1
    deleted.delete()
    assert array_text(deleted) == "f32[2]"
    texts = []
    nnx.jit(lambda m: texts.append(repr(m)))(nnx.Dict(w=nnx.Param(jnp.ones(2))))
    assert texts == ["Dict(w=Param(f32[2]))"]
    mesh = Mesh(np.array(devices(2)), ("x",))
    sharded = jax.device_put(jnp.ones(4), NamedSharding(mesh, PartitionSpec("x")))
    assert array_text(sharded) == "f32[4] [1., 1., 1., 1.]"


@pytest.mark.parametrize(
    ("number", "size", "text"),
    [
        (0, 0, "0 (0 B)"),
        (999, 999, "999 (999 B)"),
        (1234, 4936, "1,234 (4.9 KB)"),
        (10**9, 4 * 10**9, "1,000,000,000 (4.0 GB)"),
        (1, 5 * 10**15, "1 (5000.0 TB)"),
    ],
)
def test_counts(number: int, size: int, text: str) -> None:
    assert count_text(number, size) == text
