"""`Rngs`: streams by name, with a default one for all other names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

from weft._core.errors import WeftError, surface
from weft._module import Pytree
from weft._object.pytree import attributes
from weft._rng.draws import KeySource
from weft._rng.seeds import (
    Derive,
    Pairs,
    Rules,
    broadcast_key,
    first_match,
    fork_key,
    rules_of,
    split_key,
)
from weft._rng.streams import RngStream, require_scalar


class UnknownStreamError(WeftError, AttributeError, KeyError):
    """A stream was asked for that an `Rngs` neither has nor has a default for."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr


class Rngs(KeySource, Pytree):
    """Streams of keys by name, with a default one for all other names.

    `rngs.params()` draws from the stream `params`, or from `default` if there is none of that
    name, and `rngs.normal(shape)` and its like draw from `default`.

    Args:
      default: a seed (an integer, a key, legacy uint32 key data or an `RngStream`) for the
        stream `default`, or a mapping of names to seeds.
      **rngs: a seed per name. A stream given as a seed is copied with its counter, so that it
        goes on where it stands and never repeats a key.

    Raises:
      TypeError: if a seed or a name is of another type.
      ValueError: if a name is that of a method of `Rngs`, which it would hide.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0, dropout=1)
      >>> list(rngs)
      ['dropout', 'default']
      >>> key = rngs.params()  # drawn from `default`
      >>> int(rngs.default.count[...])
      1
    """

    def __init__(self, default: Any = None, **rngs: Any):
        if isinstance(default, Mapping):
            rngs = {**default, **rngs}
        elif default is not None:
            rngs["default"] = default
        for name, seed in rngs.items():
            _check_name(name)
            setattr(self, name, RngStream(seed, tag=name))

    def __getitem__(self, name: str) -> RngStream:
        """Returns the stream of a name, or the default one.

        Raises:
          UnknownStreamError: a KeyError; if there is neither.
        """
        streams = _streams(self)
        for candidate in (name, "default"):
            if candidate in streams:
                return streams[candidate]
        raise UnknownStreamError(_unknown(name, tuple(streams)))

    def __getattr__(self, name: str) -> RngStream:
        """Returns the default stream, for a name that is no attribute.

        Raises:
          UnknownStreamError: an AttributeError; if there is no default stream.
        """
        # Private names are what protocols (copy, pickle, notebooks) probe for, never streams.
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        surface(self, name)
        return self[name]

    def __call__(self) -> jax.Array:
        """Returns the next key of the default stream."""
        return self.default()

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the streams."""
        return iter(_streams(self))

    def __len__(self) -> int:
        """Returns the number of streams."""
        return len(_streams(self))

    def __contains__(self, name: Any) -> bool:
        """Returns whether there is a stream of this name, the default not counted."""
        return isinstance(name, str) and name in _streams(self)

    def items(self) -> Iterable[tuple[str, RngStream]]:
        """Returns the pairs of a name and its stream."""
        return _streams(self).items()

    def split(self, k: Rules) -> Rngs:
        """Returns streams of several keys, for a transform to map over.

        Args:
          k: how many keys, or their shape, for every stream; or a mapping of filters to these.
            A stream that no filter matches, or one with None, is copied with its counter: it
            goes on where it stands and never repeats a key.

        Returns:
          New streams; those split start at counter 0.

        Example:
          >>> import weft as nnx
          >>> rngs = nnx.Rngs(params=0, dropout=1).split({"params": 5})
          >>> rngs.params.key.shape, rngs.dropout.key.shape
          ((5,), ())
        """
        return self._derive(rules_of(k, split_key, none=None), otherwise=None)

    def broadcast(self, k: Rules) -> Rngs:
        """Returns streams that hold their next key several times.

        Args:
          k: as for `split`; streams that no filter matches are copied with their counter.

        Example:
          >>> import weft as nnx
          >>> rngs = nnx.Rngs(0).broadcast(3)
          >>> bool((rngs.default.key[0] == rngs.default.key[2]))
          True
        """
        return self._derive(rules_of(k, broadcast_key, none=None), otherwise=None)

    def fork(self, /, *, split: Rules = None) -> Rngs:
        """Returns streams whose base keys are the next keys of these.

        Args:
          split: how many keys to split into, as for `Rngs.split`; streams that no filter
            matches, or one with None, are forked into one key.

        Example:
          >>> import weft as nnx
          >>> rngs = nnx.Rngs(0)
          >>> bool(rngs.fork()() == rngs())
          False
        """
        return self._derive(rules_of(split, split_key, none=fork_key), otherwise=fork_key)

    def _derive(self, pairs: Pairs, otherwise: Derive | None) -> Rngs:
        chosen = [(n, s, first_match(pairs, (n,), s, otherwise)) for n, s in self.items()]
        for _, stream, derive in chosen:
            if derive is not None:  # checked for all of them before any of them is drawn from
                require_scalar(stream)
        return Rngs({n: s if derive is None else s._derive(derive) for n, s, derive in chosen})


def _streams(rngs: Rngs) -> dict[str, RngStream]:
    return {name: value for name, value in attributes(rngs).items() if isinstance(value, RngStream)}


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(
            f"stream names are strings, found {name!r} of type {type(name).__name__}; write "
            "`nnx.Rngs({'dropout': 0})`"
        )
    # A stream named like a distribution (`normal`, `gamma`, ...) may hide that method of `rngs`.
    if name.startswith("__") or (hasattr(Rngs, name) and name not in vars(KeySource)):
        raise ValueError(
            f"a stream cannot be named {name!r}, which is an attribute of nnx.Rngs; choose another "
            f"name, `nnx.Rngs({name.strip('_')}_rng=0)`"
        )


def _unknown(name: Any, available: tuple[str, ...]) -> str:
    has = f"it has {', '.join(map(repr, available))}" if available else "it has no streams"
    others = [f"{other}=..." for other in available]
    with_default = f"`nnx.Rngs({', '.join(['0', *others])})`"
    if name == "default":
        draw = f"draw from a named one, `rngs.{available[0]}()`, or " if available else ""
        return f"this Rngs has no default stream ({has}): {draw}give it one, {with_default}"
    return (
        f"this Rngs has no stream {name!r} and no default stream ({has}): give it that stream, "
        f"`nnx.Rngs({', '.join([*others, f'{name}=0'])})`, or a default for all other names, "
        f"{with_default}"
    )
