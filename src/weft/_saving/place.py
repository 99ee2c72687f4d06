"""Saved leaves as the kinds of values that they replace, on the same devices."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._saving.dtypes import DTYPES
from weft._saving.facts import Fact, fits


def place(value: Any, saved: Fact, old: Any, wanted: Fact) -> Any:
    """Returns a saved leaf as what takes the place of another one.

    Args:
      value: an array of NumPy that nothing else uses, or a Python number; for keys their data.
      saved: what is known of it.
      old: the leaf to replace; may be abstract.
      wanted: what is known of that one.
    """
    weak = saved.weak
    if not fits(saved, wanted):
        if wanted.number is not None:
            return type(old)(value.item() if isinstance(value, np.ndarray) else value)
        value, weak = np.asarray(value).astype(DTYPES[wanted.dtype]), False
    elif saved.number is not None:
        return value
    if isinstance(old, np.generic):
        return value[()]
    if isinstance(old, np.ndarray):
        return value
    made = _on_devices(value, saved.key, weak, sharding_of(old))
    if saved.key is None and made.dtype != value.dtype:
        raise StructureError(
            f"{format_path(saved.path)} was saved as {saved}, which JAX does not have here: "
            '`jax.config.update("jax_enable_x64", True)`, or restore with `cast=True` into float32'
        )
    return made


def _on_devices(value: np.ndarray, key: str | None, weak: bool, sharding: Any) -> jax.Array:
    if sharding is not None and not sharding.is_fully_addressable:
        return _on_devices_of_all(value, key, weak, sharding)
    put: Any = jnp.asarray
    if sharding is not None:
        put = functools.partial(jax.device_put, device=sharding)
    if key is not None:
        keys = jax.random.wrap_key_data(jnp.asarray(value), impl=key)
        return keys if sharding is None else put(keys)
    if weak and value.ndim == 0:  # only from a Python number does JAX make one
        number = jnp.asarray(value.item())
        if number.dtype == value.dtype:
            return put(number)
    return put(value)


def _on_devices_of_all(value: np.ndarray, key: str | None, weak: bool, sharding: Any) -> jax.Array:
    """Returns an array of which each process, that has all of it, keeps what is on its devices."""
    if weak and value.ndim == 0:
        number = value.item()
        return jax.jit(lambda: jnp.asarray(number), out_shardings=sharding)()
    made = jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
    return made if key is None else jax.random.wrap_key_data(made, impl=key)


def check_places(olds: Mapping[Path, Any], wanted: Mapping[Path, Fact]) -> None:
    """Raises StructureError where a sharding of the objects cannot be that of what they hold.

    Args:
      olds: the leaves to replace; may be abstract.
      wanted: what is known of those that are replaced.
    """
    faults = []
    for path, fact in wanted.items():
        sharding = sharding_of(olds[path])
        try:
            if sharding is not None:
                sharding.shard_shape(fact.shape)
        except (ValueError, IndexError) as error:  # not divisible, or of more axes
            faults.append(f"{format_path(path)}, {fact}: {error}")
    if faults:
        raise StructureError(
            "the objects ask for shardings that arrays of their shapes cannot have, and nothing "
            "was written:\n  " + "\n  ".join(faults) + "\nmake them for another mesh, or without"
        )


def sharding_of(old: Any) -> Any:
    """Returns where the new value belongs; None for where JAX puts it."""
    if isinstance(old, jax.Array) and not old.committed:
        return None
    sharding = getattr(old, "sharding", None)
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, AbstractMesh):
        mesh = jax.sharding.get_mesh()
        return None if mesh.empty else NamedSharding(mesh, sharding.spec)
    return sharding
