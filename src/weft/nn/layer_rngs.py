"""What layers that draw random numbers do with `rngs`.

A *collection* is the name of the stream a layer draws from (`dropout`, `carry`). A layer *keeps* a
stream forked from the one it was made with, so that two layers made from one `Rngs` never draw the
same key; or it draws from what is given at the call.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import jax
import jax.numpy as jnp

from weft._rng import Rngs, RngStream


def find_stream(rngs: Rngs | RngStream, collection: str, layer: str) -> RngStream:
    """Returns the stream of a collection; a stream stands for itself.

    Args:
      rngs: an `Rngs`, of which the stream `collection` or else `default` is taken, or a stream.
      collection: the name of the stream.
      layer: the layer's class name, for the error.

    Raises:
      ValueError: if there is no such stream.
    """
    if isinstance(rngs, RngStream):
        return rngs
    try:
        return rngs[collection]
    except KeyError:
        raise ValueError(
            f"{layer} draws from the stream {collection!r}, but the Rngs it was given has only "
            f"{sorted(rngs)}. Add the stream, `nnx.Rngs(..., {collection}=1)`, or a default one, "
            "`nnx.Rngs(0)`"
        ) from None


def keep_stream(rngs: Rngs | RngStream | None, collection: str, layer: str) -> RngStream | None:
    """Returns the stream that a layer keeps: a fork of the one given, or None for None.

    Raises:
      TypeError: if `rngs` is neither.
      ValueError: if there is no such stream.
    """
    if rngs is None:
        return None
    if not isinstance(rngs, (Rngs, RngStream)):
        raise TypeError(
            f"{layer} takes `rngs` as an nnx.Rngs, an nnx.RngStream or None, found "
            f"{type(rngs).__name__}. Write `nnx.{layer}(..., rngs=nnx.Rngs({collection}=0))`"
        )
    return find_stream(rngs, collection, layer).fork()


def draw_key(
    given: Any, kept: RngStream | None, collection: str, layer: str, example: str
) -> jax.Array:
    """Returns the key for one call, from what was given at the call or else from the layer's own.

    Args:
      given: an `Rngs`, a stream, a key (used as it is), or None.
      kept: the stream that the layer keeps, or None.
      collection: the name of the stream to draw from.
      layer: the layer's class name, for the errors.
      example: how the layer is made, up to `rngs=`, for the errors.

    Raises:
      ValueError: if there is neither, or no such stream.
      TypeError: if `given` is none of these.
    """
    source = kept if given is None else given
    if isinstance(source, (Rngs, RngStream)):
        return find_stream(source, collection, layer)()
    if _is_key(source):
        return source
    if source is not None:
        raise TypeError(
            f"{layer} takes `rngs` at the call as an nnx.Rngs, an nnx.RngStream or a key, found "
            f"{type(source).__name__}. Write `layer(x, rngs=nnx.Rngs({collection}=0))`"
        )
    raise ValueError(
        f"{layer} needs random numbers from the stream {collection!r}, but has no stream: it was "
        "given none when it was made, and none at the call. Give it one of its own, "
        f"`{example}rngs=rngs)`, or one at each call, `layer(x, rngs=rngs)`; or switch the "
        "randomness off, `layer(x, deterministic=True)`"
    )


def _is_key(value: Any) -> TypeGuard[jax.Array]:
    if not isinstance(value, jax.Array):
        return False
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key) or value.dtype == jnp.uint32
