"""Seeds and derivations: how base keys are made.

A *seed* is what a stream is made from: an integer, a key, or another stream. A *derivation* makes
the base key of a new stream from the next key of an old one: it splits, repeats or just takes it.
"""

from __future__ import annotations

import functools
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.filters import Filter, Predicate, filters_to_predicates
from weft._core.path import Path
from weft._core.trace import is_outermost
from weft._variable.variable import Variable

Shape = tuple[int, ...]
Splits = int | tuple[int, ...]
Rules = Splits | Mapping[Filter, Splits | None] | None
Derive = Callable[[jax.Array], jax.Array]
"""How a new base key is made from the next key of a stream."""
Pairs = Iterable[tuple[Predicate, Derive | None]]
"""Predicates on streams and what is done to those that match; None leaves them alone."""


def zero_count(key: jax.Array) -> jax.Array:
    """Returns the counter that a new base key starts with."""
    return jnp.zeros(key.shape, jnp.uint32)


def draw(key: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the next key of a stream, made from its base key, and the counter after it."""
    if is_outermost():
        return _advance(key, count, np.int64(0), False)
    return jax.random.fold_in(key, count), count + 1


@jax.jit
def _advance(
    key: jax.Array, count: jax.Array | np.uint32, seed: np.int64, starts: bool
) -> tuple[jax.Array, jax.Array]:
    """Starts a stream or draws from it: both are done by one program, compiled once."""
    impl = jax.random.key_impl(key)
    base = jax.random.key(seed, impl=impl)
    drawn = jax.random.fold_in(key, count)
    # The data are selected: of a selected key JAX's check for keys used twice says that it was.
    data = jnp.where(starts, jax.random.key_data(base), jax.random.key_data(drawn))
    chosen = jax.random.wrap_key_data(data, impl=impl)
    return chosen, jnp.where(starts, np.uint32(0), count + 1)


def _start(seed: np.int64) -> tuple[jax.Array, jax.Array]:
    # The default is not part of what `jax.jit` keeps programs by, but the type of a key is.
    impl = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
    if is_outermost():
        words: Any = np.zeros(_words(impl), np.uint32)
        blank = jax.random.wrap_key_data(words, impl=impl)
        return _advance(blank, np.uint32(0), seed, True)
    key = jax.random.key(seed, impl=impl)
    return key, zero_count(key)


@functools.cache
def _words(impl: str) -> Shape:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape


def start_of(seed: Any, stream: str) -> tuple[jax.Array, jax.Array]:
    """Returns the base key, typed, that a seed stands for, and the counter it starts with.

    Args:
      seed: an integer (Python, NumPy, or a 0-d JAX array, traced or not), a typed key, legacy
        uint32 key data with its words on the last axis, or a Variable that holds one of these.
      stream: the name of the stream it is for, which errors name.

    Raises:
      TypeError: for anything else.
      ValueError: for an integer of more than 64 bits, or uint32 data that is no key.
    """
    if isinstance(seed, Variable):
        seed = seed.get_value()
    if isinstance(seed, np.generic) or (isinstance(seed, np.ndarray) and not seed.ndim):
        seed = seed.item()
    if isinstance(seed, int):
        try:
            return _start(np.int64(seed))
        except OverflowError as error:
            raise ValueError(
                f"seed {seed} of stream {stream!r} does not fit into 64 bits: give a smaller one, "
                f"`nnx.Rngs({stream}=seed % 2**32)`"
            ) from error
    if isinstance(seed, np.ndarray) and seed.dtype == np.uint32:
        seed = jnp.asarray(seed)
    if isinstance(seed, jax.Array):
        if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
            return seed, zero_count(seed)
        if not seed.ndim and jnp.issubdtype(seed.dtype, jnp.integer):
            key = jax.random.key(seed)
            return key, zero_count(key)
        if seed.dtype == jnp.uint32:
            try:
                key = jax.random.wrap_key_data(seed)
                return key, zero_count(key)
            except (TypeError, ValueError) as error:
                default = str(jax.random.key_impl(jax.random.key(0)))
                raise ValueError(
                    f"stream {stream!r}: uint32 data of shape {seed.shape} is no key of the PRNG "
                    f"{default!r}: name the one it was made with, "
                    "`jax.random.wrap_key_data(data, impl=...)`, and pass the result"
                ) from error
    if isinstance(seed, (jax.Array, np.ndarray)):
        found = f"an array {seed.dtype}{list(seed.shape)}"
    else:
        found = f"{reprlib.repr(seed)} of type {type(seed).__name__}"
    raise TypeError(
        f"stream {stream!r}: expected a seed (an integer), a key (`jax.random.key(0)`), legacy "
        f"uint32 key data or an RngStream, found {found}. Write `nnx.Rngs({stream}=0)`"
    )


def shape_of(splits: Any) -> Shape:
    """Returns the shape of keys that a number of splits stands for.

    Raises:
      TypeError: if it is neither an integer nor a tuple of integers.
      ValueError: if one is negative.
    """
    try:
        sizes = splits if isinstance(splits, (tuple, list)) else (splits,)
        shape = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise TypeError(
            "expected the number of splits as an int, or a tuple of ints for several axes, found "
            f"{splits!r} of type {type(splits).__name__}; to split only some streams, write "
            "`rngs.split({'dropout': 4})`, or `nnx.split_rngs(model, splits=4, only='dropout')` "
            "for those inside a model"
        ) from None
    if any(size < 0 for size in shape):
        raise ValueError(f"cannot split a stream into {splits!r} keys: the number is negative")
    return shape


def split_key(shape: Shape) -> Derive:
    """Returns the derivation that splits a key into independent ones."""
    return lambda key: jax.random.split(key, shape)


def broadcast_key(shape: Shape) -> Derive:
    """Returns the derivation that repeats a key."""
    return lambda key: jnp.broadcast_to(key, shape)


def fork_key(key: jax.Array) -> jax.Array:
    """The derivation that takes the key as it is."""
    return key


def rules_of(rules: Rules, derivation: Callable[[Shape], Derive], *, none: Derive | None) -> Pairs:
    """Returns pairs of a predicate on streams and what is done to those that match.

    Args:
      rules: a number of splits for every stream, or a mapping of filters to numbers.
      derivation: what a number stands for.
      none: what None in place of a number stands for.
    """
    mapping = rules if isinstance(rules, Mapping) else {...: rules}
    derivations = [none if k is None else derivation(shape_of(k)) for k in mapping.values()]
    return tuple(zip(filters_to_predicates(tuple(mapping)), derivations, strict=True))


def first_match(
    pairs: Pairs, path: Path, value: Any, otherwise: Derive | None = None
) -> Derive | None:
    """Returns what stands beside the first predicate that matches."""
    return next((derive for matches, derive in pairs if matches(path, value)), otherwise)
