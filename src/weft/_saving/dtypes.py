"""Dtypes that can be saved, and what stands for those that safetensors has not.

Integers of a few bits are written as int8 or uint8 of the same values, small floats as their bytes,
complex128 as pairs of float64: other tools see arrays that they know.
"""

from __future__ import annotations

import jax  # noqa: F401  # NumPy knows bfloat16 and the like by name once JAX is there
import numpy as np

_BITS = (8, 16, 32, 64)
_NATIVE = {
    "bool": "BOOL",
    **{f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in _BITS},
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
_VALUES = {"int2": "int8", "int4": "int8", "uint2": "uint8", "uint4": "uint8"}
_BYTES = {
    "float4_e2m1fn": "uint8",
    "float6_e2m3fn": "uint8",
    "float6_e3m2fn": "uint8",
    "float8_e3m4": "uint8",
    "float8_e4m3": "uint8",
    "float8_e4m3b11fnuz": "uint8",
    "complex128": "float64",
}


def _known(names: dict[str, str]) -> dict[str, np.dtype]:
    found = {}
    for name in names:
        try:
            found[name] = np.dtype(name)
        except TypeError:  # of another release of ml_dtypes
            continue
    return found


DTYPES = _known(_NATIVE | _VALUES | _BYTES)
"""All dtypes that can be saved, by name."""
FORMAT_NAMES = {name: code for name, code in _NATIVE.items() if name in DTYPES}
"""What safetensors calls its dtypes, by name."""
FORMAT_DTYPES = {code: DTYPES[name] for name, code in FORMAT_NAMES.items()}
"""The same dtypes by what safetensors calls them."""


def to_stored(array: np.ndarray) -> np.ndarray:
    """Returns an array as it is written: contiguous, little-endian, of a dtype of safetensors."""
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    if array.dtype.name in _VALUES:
        return array.astype(_VALUES[array.dtype.name])
    stand_in = _BYTES.get(array.dtype.name)
    if stand_in is None:
        return array
    parts = array.dtype.itemsize // np.dtype(stand_in).itemsize
    return array.view(stand_in) if parts == 1 else array[..., None].view(stand_in)


def stored_as(dtype: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Returns dtype and shape of the array that is written for one of a dtype and shape."""
    if dtype == "complex128":
        return "float64", (*shape, 2)
    return _VALUES.get(dtype) or _BYTES.get(dtype) or dtype, shape


def from_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """Returns the array that was written as the given one."""
    if dtype in _VALUES:
        return array.astype(DTYPES[dtype])
    if dtype == "complex128":
        return array.view(DTYPES[dtype])[..., 0]
    return array.view(DTYPES[dtype])
