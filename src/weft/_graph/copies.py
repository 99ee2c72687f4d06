"""Copies of arrays in buffers of their own, many at once.

Arrays that look the same, which repeated layers have many of, are copied by one compiled program,
some of them in each call. Where that might lose a sharding or a memory, they are copied one by one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

_AT_ONCE = 16


@jax.jit
def _copies_of(arrays: list[jax.Array]) -> list[jax.Array]:
    return [jnp.copy(array) for array in arrays]


def copy_arrays(tree: Any) -> Any:
    """Copies all arrays of a pytree, those of NumPy too; other leaves stay as they are."""
    leaves, treedef = jax.tree.flatten(tree)
    alike: dict[Any, list[int]] = {}
    shardings: dict[int, tuple[Any, bool]] = {}  # by address, which is why they are kept
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            sharding = leaf.sharding
            found = shardings.get(id(sharding))
            if found is None:
                found = shardings[id(sharding)] = (sharding, _is_usual(sharding))
            if found[1]:
                alike.setdefault((leaf.aval, id(sharding)), []).append(i)
                continue
        leaves[i] = _copy(leaf)
    for positions in alike.values():
        while positions:
            number = _AT_ONCE if len(positions) >= _AT_ONCE else 1
            chunk, positions = positions[:number], positions[number:]
            for i, new in zip(chunk, _copies_of([leaves[i] for i in chunk]), strict=True):
                leaves[i] = new
    return jax.tree.unflatten(treedef, leaves)


def _is_usual(sharding: Any) -> bool:
    """Returns whether arrays are on one device, in the memory where programs put their results."""
    if not isinstance(sharding, SingleDeviceSharding):
        return False
    (device,) = sharding.device_set
    return sharding.memory_kind in (None, device.default_memory().kind)


def _copy(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jnp.copy(leaf)
    if isinstance(leaf, jax.ShapeDtypeStruct) or not hasattr(type(leaf), "copy"):
        return leaf
    return leaf.copy()
