"""Raw values: what a Variable stores, without the Variable.

A raw value is a single leaf (an array, a key, a number) or a pytree of them, whose containers are
plain Python objects: who shares one with another Variable shares what is written into it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer


def is_leaf(raw: Any) -> bool:
    """Returns whether a raw value is a single leaf."""
    return isinstance(raw, jax.Array) or jtu.all_leaves((raw,))


def own_value(raw: Any) -> Any:
    """Returns a raw value for another Variable: with the same arrays, in containers of its own."""
    return raw if is_leaf(raw) else jax.tree.map(lambda leaf: leaf, raw)


def replace_item(old: Any, index: Any, item: Any) -> Any:
    """Returns a raw value with an item replaced; the old one stays as it is."""
    if isinstance(old, jax.Array):
        if index is ... and isinstance(item, jax.Array) and item.shape == old.shape:
            return item if item.dtype == old.dtype else item.astype(old.dtype)
        return old.at[index].set(item)
    if index is ...:
        return item
    new = old.copy() if hasattr(type(old), "copy") else old
    new[index] = item
    return new


@dataclasses.dataclass(frozen=True)
class _PickledKey:
    """A typed PRNG key as plain data, which pickle can hold."""

    implementation: str
    data: np.ndarray


def to_picklable(raw: Any) -> Any:
    """Returns a raw value that pickle can hold, in containers of its own."""
    return jax.tree.map(_without_key, raw)


def from_picklable(value: Any) -> Any:
    """Returns the raw value that was made picklable."""
    return jax.tree.map(_with_key, value, is_leaf=lambda x: isinstance(x, _PickledKey))


def _without_key(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
        return leaf  # a tracer is never pickled, but copied
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    with jax.ensure_compile_time_eval():
        data = np.asarray(jax.random.key_data(leaf))
    return _PickledKey(str(jax.random.key_impl(leaf)), data)


def _with_key(leaf: Any) -> Any:
    if not isinstance(leaf, _PickledKey):
        return leaf
    with jax.ensure_compile_time_eval():
        return jax.random.wrap_key_data(jax.numpy.asarray(leaf.data), impl=leaf.implementation)
