"""Sizes, dtypes and arrays in the words of a person."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

_SMALL = 8
_SHORT = {"float": "f", "int": "i", "uint": "u", "complex": "c", "bfloat": "bf"}


def count_text(number: int, size: int) -> str:
    """Writes a number of elements and bytes: `1,234 (4.9 KB)`."""
    text = f"{size} B"
    for unit in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size /= 1000  # type: ignore[assignment]
        text = f"{size:.1f} {unit}"
    return f"{number:,} ({text})"


def dtype_text(dtype: Any) -> str:
    """Writes a dtype as JAX does in types: `f32`, `bf16`, `key<fry>`."""
    name = str(dtype)
    match = re.match("[a-z]+", name)
    stem = match[0] if match else ""
    return _SHORT.get(stem, stem) + name[len(stem) :]


def array_text(x: Any) -> str:
    """Writes an array: its numbers if they are few, else dtype and shape."""
    shape = f"{dtype_text(x.dtype)}[{','.join(map(str, x.shape))}]"
    concrete = isinstance(x, (jax.Array, np.ndarray)) and not isinstance(x, Tracer)
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
    if not concrete or is_key or x.size > _SMALL:
        return shape
    if isinstance(x, jax.Array) and (x.is_deleted() or not x.is_fully_addressable):
        return shape
    return f"{shape} {np.array2string(np.asarray(x), separator=', ', precision=4)}".replace(
        "\n", ""
    )
