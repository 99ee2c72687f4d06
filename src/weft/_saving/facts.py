"""Facts: what is known of a saved leaf besides its bytes.

A *leaf* is an array, a typed PRNG key array or a Python number; the path goes on inside a Variable
that holds a pytree. Its *fact* says all that a file of arrays cannot: exact path, kind, dtype,
implementation of keys, whether the type is weak. Facts stand as JSON beside the arrays.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from weft._core.errors import CheckpointError
from weft._core.path import Path, format_path
from weft._saving import names
from weft._saving.dtypes import DTYPES

NUMBERS = (bool, int, float, complex)


@dataclasses.dataclass(frozen=True)
class Fact:
    """What is known of a leaf besides its bytes.

    Attributes:
      path: where it is, with the exact keys.
      dtype: the dtype's name; for a Python number that of its type.
      shape: the shape, for keys without the axis of their data.
      key: the implementation, for typed PRNG keys.
      weak: whether it is a JAX scalar of a weak type, as `jnp.asarray(1.0)` is.
      number: the Python number, if it is one.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    key: str | None = None
    weak: bool = False
    number: bool | int | float | complex | None = None

    def __str__(self) -> str:
        if self.number is not None:
            return f"a Python {self.dtype}"
        if self.key is not None:
            return f"PRNG keys of {self.dtype} and shape {self.shape}"
        return f"{self.dtype}{list(self.shape)}"

    def to_json(self) -> dict[str, Any]:
        """Returns the fact as JSON; what is as usual is left out."""
        record: dict[str, Any] = {"path": names.to_json(self.path)}
        if self.number is not None:
            is_complex = isinstance(self.number, complex)
            parts = {"complex": [self.number.real, self.number.imag]} if is_complex else self.number
            return {**record, "number": parts}
        kind = {"dtype": self.dtype} if self.key is None else {"key": self.key}
        weak = {"weak": True} if self.weak else {}
        return {**record, **kind, "shape": list(self.shape), **weak}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Fact:
        """Returns the fact of its JSON.

        Raises:
          KeyError, TypeError, ValueError: if it makes no sense.
          CheckpointError: if this JAX does not know the implementation of the keys.
        """
        path = names.from_json(record["path"])
        if "number" in record:
            number = record["number"]
            number = complex(*number["complex"]) if isinstance(number, dict) else number
            if not isinstance(number, NUMBERS):
                raise ValueError(f"{number!r} is no number")
            return Fact(path, type(number).__name__, (), number=number)
        shape = tuple(record["shape"])
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{shape} is no shape")
        if "key" in record:
            return Fact(path, str(key_dtype(record["key"])), shape, key=record["key"])
        return Fact(path, DTYPES[record["dtype"]].name, shape, weak=bool(record.get("weak")))


def is_key(value: Any) -> bool:
    """Says whether a value is a typed PRNG key array, concrete or abstract."""
    return isinstance(value, (jax.Array, jax.ShapeDtypeStruct)) and jnp.issubdtype(
        value.dtype, jax.dtypes.prng_key
    )


@functools.cache
def key_dtype(implementation: str) -> Any:
    """Returns the dtype of the keys of an implementation.

    Raises:
      CheckpointError: if this JAX does not know it.
    """
    try:
        return jax.eval_shape(lambda: jax.random.key(0, impl=implementation)).dtype
    except Exception as error:
        raise CheckpointError(
            f"the PRNG implementation {implementation!r} is not known here: {error}"
        ) from None


def fact_of(path: Path, value: Any) -> Fact:
    """Returns what is known of a leaf, concrete or abstract.

    Raises:
      TypeError: if it is no leaf that can be saved.
    """
    if type(value) in NUMBERS:
        return Fact(path, type(value).__name__, (), number=value)
    if isinstance(value, (jax.Array, jax.ShapeDtypeStruct, np.ndarray, np.generic)):
        if is_key(value):
            concrete = isinstance(value, jax.Array) and not isinstance(value, Tracer)
            key = str(jax.random.key_impl(value) if concrete else value.dtype)  # type: ignore[arg-type]
            return Fact(path, str(value.dtype), value.shape, key=key)
        name = value.dtype.name
        if name in DTYPES:
            weak = bool(getattr(value, "weak_type", False))
            return Fact(path, name, value.shape, weak=weak)
        found = f"an array of dtype {value.dtype}"
    else:
        found = f"a {type(value).__name__}"
    raise TypeError(
        f"{format_path(path)}: expected an array of numbers, PRNG keys or a Python number, "
        f"found {found}: it cannot be saved"
    )


def fits(saved: Fact, wanted: Fact) -> bool:
    """Says whether a saved leaf can take the place of another one as it is.

    What was a Python number when made is an array of a weak type after a compiled function has
    changed it: either may take the place of the other.
    """
    if (saved.dtype, saved.shape) == (wanted.dtype, wanted.shape):
        return True
    pair = [saved, wanted] if saved.number is not None else [wanted, saved]
    number, array = pair
    if number.number is None or array.number is not None or array.key or array.shape:
        return False
    kind = type(number.number)
    return array.dtype == jnp.result_type(kind).name and (array.weak or kind is bool)


def can_cast(saved: Fact, wanted: Fact) -> bool:
    """Says whether a saved leaf fits once its dtype is changed."""
    if saved.key or wanted.key or saved.shape != wanted.shape:
        return False
    return "complex" in wanted.dtype or "complex" not in saved.dtype
