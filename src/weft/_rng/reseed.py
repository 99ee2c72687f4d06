"""Giving the streams of some names new seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax

from weft._core.path import Path
from weft._rng.backups import place_of, set_stream, streams_of
from weft._rng.rngs import Rngs
from weft._rng.seeds import start_of

Policy = Callable[[Path, jax.Array, tuple[int, ...]], jax.Array]


def _keep_scalar(path: Path, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if shape:
        raise ValueError(
            f"cannot reseed the stream {place_of(path)}with one key: it was split and holds keys "
            f"of shape {shape}. Write `nnx.reseed(model, policy='match_shape', ...)` to split the "
            "new key into that shape, or give a function `(path, key, shape) -> key` as policy"
        )
    return key


def _match_shape(path: Path, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.split(key, shape) if shape else key


_POLICIES: dict[Any, Policy] = {"scalars_only": _keep_scalar, "match_shape": _match_shape}


def reseed(
    node: Any,
    /,
    *,
    graph: bool | None = None,
    policy: Literal["scalars_only", "match_shape"] | Policy = "scalars_only",
    **stream_keys: Any,
) -> None:
    """Gives the streams of some names new base keys and sets their counters to 0.

    All streams of one name take their keys in turn from one stream made from the seed, in the
    order of `iter_graph`: `jax.random.fold_in(key, 0)`, `jax.random.fold_in(key, 1)`, ...

    Args:
      node: a model, an `Rngs`, or a pytree of these.
      graph: whether objects may be shared; None for the setting.
      policy: what is done to streams of several keys. "scalars_only": that is an error.
        "match_shape": the new key is split into their shape. A function `(path, key, shape) ->
        key`: what it returns.
      **stream_keys: a seed per name: an integer, a key, or an `RngStream`, which is not
        advanced. Names that no stream of the node bears have no effect.

    Raises:
      ValueError: for an unknown policy, and for a stream of several keys by "scalars_only". No
        stream is changed then.
      TypeError: if a seed, or what the policy returns, is none.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(params=0, dropout=1)
      >>> nnx.reseed(rngs, dropout=7)
      >>> int(rngs.dropout.count[...])
      0
    """
    apply = _POLICIES.get(policy, policy) if isinstance(policy, str) else policy
    if not callable(apply):
        raise ValueError(
            f"unknown policy {policy!r}: expected {' or '.join(map(repr, _POLICIES))}, or a "
            "function `(path, key, shape) -> key`"
        )
    sources = Rngs(stream_keys)
    starts = [
        (stream, *start_of(apply(path, sources[stream.tag](), stream.key.shape), stream.tag))
        for path, stream in streams_of(node, graph)
        if stream.tag in sources
    ]
    for stream, key, count in starts:
        set_stream(stream, key, count)
