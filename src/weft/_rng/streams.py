"""Streams: a base key and a counter each.

Drawing folds the counter into the base key and adds one to it, so that the n-th key of a stream is
`jax.random.fold_in(key, n)`, with n from 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from weft._module import Pytree
from weft._rng.draws import KeySource
from weft._rng.seeds import (
    Derive,
    Splits,
    broadcast_key,
    draw,
    fork_key,
    shape_of,
    split_key,
    start_of,
)
from weft._variable.types import RngCount as RngCount
from weft._variable.types import RngKey as RngKey
from weft._variable.types import RngState as RngState

watchers: list[Callable[[Any, jax.Array, jax.Array], None]] = []
"""Are told of each draw: the stream, its base key and its count."""


def require_scalar(stream: RngStream, where: str = "") -> None:
    """Raises if a stream holds several keys, or key data without a key type.

    Args:
      stream: the stream.
      where: where it is, ending in a space, for the error to name.

    Raises:
      ValueError: see above.
    """
    key = stream.key.get_value()
    if not key.shape:
        return
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"stream {stream.tag!r} {where}holds {key.dtype} data of shape {key.shape} in place of "
            "a typed key: write `stream.key[...] = jax.random.wrap_key_data(data)`"
        )
    raise ValueError(
        f"stream {stream.tag!r} {where}was split and holds keys of shape {key.shape}, but a scalar "
        "key is expected here. Draw inside the transform that maps over the split axis, "
        "`nnx.vmap(f, in_axes=0)(rngs)`; or take the stream of one index, "
        "`jax.tree.map(lambda x: x[0], rngs)`; or split only for the length of a call or block, "
        "after which the scalar key is back: `@nnx.split_rngs(splits=N)`, "
        "`with nnx.split_rngs(model, splits=N):`"
    )


class RngStream(KeySource, Pytree):
    """A stream of keys: the n-th call returns `jax.random.fold_in(key, n)`, with n from 0.

    Args:
      key: a seed: an integer, a key, legacy uint32 key data, or another stream, whose key and
        counter are copied. Of an array of keys each element becomes a stream of its own.
      tag: the name, by which filters select the stream and its two Variables.

    Attributes:
      tag: the name.
      key: the base key, an `RngKey`.
      count: how many keys were drawn, an `RngCount` of the key's shape.

    Raises:
      TypeError: if `key` is no seed.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> stream = nnx.RngStream(0, tag="dropout")
      >>> bool(stream() == jax.random.fold_in(jax.random.key(0), 0))
      True
      >>> stream.normal((2,)).shape
      (2,)
    """

    tag: str
    key: RngKey[jax.Array]
    count: RngCount[jax.Array]

    def __init__(self, key: Any, *, tag: str):
        if isinstance(key, RngStream):
            key, count = key.key.get_value(), key.count.get_value()
        else:
            key, count = start_of(key, tag)
        self.tag = tag
        self.key = RngKey(key, tag=tag)
        self.count = RngCount(count, tag=tag)

    def __call__(self) -> jax.Array:
        """Returns the next key and counts it.

        Raises:
          ValueError: if the stream was split, so that there is no single next key.
          TraceContextError: if the stream belongs to another trace.
        """
        key = self.key.get_value()
        if key.shape:
            require_scalar(self)
        before = self.count.get_value()
        for watcher in watchers:
            watcher(self, key, before)
        drawn, count = draw(key, before)
        self.count.set_value(count)
        return drawn

    def split(self, k: Splits) -> RngStream:
        """Returns a stream of several keys, made from the next key by `jax.random.split`.

        Args:
          k: how many, or the shape of the keys.
        """
        return self._derive(split_key(shape_of(k)))

    def broadcast(self, k: Splits) -> RngStream:
        """Returns a stream that holds the next key several times.

        Args:
          k: how many times, or the shape of the keys.
        """
        return self._derive(broadcast_key(shape_of(k)))

    def fork(self, *, split: Splits | None = None) -> RngStream:
        """Returns a new stream whose base key is the next key of this one.

        Args:
          split: how many keys to split it into; None for one.
        """
        return self._derive(fork_key) if split is None else self.split(split)

    def _derive(self, derive: Derive) -> RngStream:
        return RngStream(derive(self()), tag=self.tag)
