"""Giving the streams inside a node new base keys, made from the next key of each.

A *node* is a model, an `Rngs`, or any pytree of these. `split_rngs` and `fork_rngs` change it in
place and hand out a backup to put the former keys back; `with_rngs` changes a copy. The next key
is drawn before the backup is taken, so that a stream that is put back goes on behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

import jax
import jax.tree_util as jtu

from weft._core.config import set_graph_mode, set_graph_updates
from weft._core.filters import Filter, Not, Predicate, to_predicate
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._core.types import MISSING
from weft._graph import merge, split
from weft._module import Pytree
from weft._rng.backups import SplitBackups, place_of, set_stream, streams_of
from weft._rng.seeds import (
    Derive,
    Pairs,
    Rules,
    Splits,
    broadcast_key,
    first_match,
    fork_key,
    rules_of,
    shape_of,
    split_key,
)
from weft._rng.streams import RngStream, require_scalar

if TYPE_CHECKING:
    from weft._rng.options import (  # pyright: ignore[reportMissingModuleSource]
        ForkOptions,
        SplitOptions,
        WithOptions,
    )

N = TypeVar("N", bound=Pytree)
P = ParamSpec("P")
R = TypeVar("R")


@overload
def split_rngs(**options: Unpack[SplitOptions]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@overload
def split_rngs(node: Pytree, /, **options: Unpack[SplitOptions]) -> SplitBackups: ...
@overload
def split_rngs(node: Callable[P, R], /, **options: Unpack[SplitOptions]) -> Callable[P, R]: ...
@overload
def split_rngs(node: Any, /, **options: Unpack[SplitOptions]) -> Any: ...
def split_rngs(
    node: Any = MISSING,
    /,
    *,
    splits: Splits,
    only: Filter = ...,
    squeeze: bool = False,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Splits the streams inside a node into several keys, for a transform to map over.

    The keys are those of `jax.random.split(stream(), splits)`, and the counters start at 0.

    Args:
      node: a model, an `Rngs`, or a pytree of these; a function, to split the streams in its
        arguments for the length of each call; or nothing, for a decorator that does so.
      splits: how many keys, or their shape.
      only: which streams: the filter must hold for both of a stream's Variables.
      squeeze: with `splits=1`, leave out the axis of length 1.
      graph: whether objects may be shared; None for the setting.
      graph_updates: False to leave the node as it is and return a copy; None for the setting.
        `graph=False` implies it.

    Returns:
      A `SplitBackups`, with which `restore_rngs` or a `with` block puts the keys back; or the
      copy; or the decorated function.

    Raises:
      ValueError: if a stream is split already, if `splits` is negative, or for `squeeze` with
        other splits than 1. No stream is changed then.
      TypeError: if `splits` is no number.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> @nnx.split_rngs(splits=4)
      ... def rows(rngs):
      ...     return jax.vmap(lambda rngs: rngs.normal((3,)))(rngs)
      >>> rows(nnx.Rngs(0)).shape
      (4, 3)
    """
    shape = shape_of(splits)
    if squeeze and shape != (1,):
        raise ValueError(f"squeeze=True is for splits=1, found splits={splits!r}")
    derive = (lambda key: jax.random.split(key, shape)[0]) if squeeze else split_key(shape)
    return _change(node, [(_by_variables(to_predicate(only)), derive)], graph, graph_updates)


@overload
def fork_rngs(**options: Unpack[ForkOptions]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@overload
def fork_rngs(node: Pytree, /, **options: Unpack[ForkOptions]) -> SplitBackups: ...
@overload
def fork_rngs(node: Callable[P, R], /, **options: Unpack[ForkOptions]) -> Callable[P, R]: ...
@overload
def fork_rngs(node: Any, /, **options: Unpack[ForkOptions]) -> Any: ...
def fork_rngs(
    node: Any = MISSING,
    /,
    *,
    split: Rules = None,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Gives the streams inside a node fresh base keys: the next key of each.

    Args:
      node: as for `split_rngs`.
      split: how many keys to split each fresh key into, None for one; or a mapping of filters
        to these. Streams that no filter matches are left alone.
      graph: as for `split_rngs`.
      graph_updates: as for `split_rngs`.

    Returns:
      As for `split_rngs`.

    Raises:
      ValueError: if a stream is split already or a number is negative. No stream is changed.
      TypeError: if a number is none.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(params=0, dropout=1)
      >>> backups = nnx.fork_rngs(rngs, split={"dropout": 3})
      >>> rngs.params.key.shape, rngs.dropout.key.shape
      ((), (3,))
      >>> nnx.restore_rngs(backups)
    """
    rules = rules_of(split, split_key, none=fork_key)
    pairs = [(_by_variables(matches), derive) for matches, derive in rules]
    return _change(node, pairs, graph, graph_updates)


@overload
def with_rngs(**options: Unpack[WithOptions]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@overload
def with_rngs(node: N, /, **options: Unpack[WithOptions]) -> N: ...
@overload
def with_rngs(node: Callable[P, R], /, **options: Unpack[WithOptions]) -> Callable[P, R]: ...
@overload
def with_rngs(node: Any, /, **options: Unpack[WithOptions]) -> Any: ...
def with_rngs(
    node: Any = MISSING,
    /,
    *,
    split: Rules = None,
    fork: Filter = None,
    broadcast: Rules = None,
    only: Filter = True,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Returns a copy of a node in which streams are split, repeated or forked.

    The copy shares all Variables with the node but those of the streams that are changed. Their
    new base keys come from the next key of the node's own streams, which count it.

    Args:
      node: a model, an `Rngs`, or a pytree of these; a function, to call it with such copies of
        its arguments; or nothing, for a decorator that does so.
      split: how many keys to split streams into: for all, or a mapping of filters to numbers.
      fork: which streams get their next key as base key.
      broadcast: how often to repeat the next key: for all, or a mapping of filters to numbers.
        A stream that several of the three name is split, else repeated, else forked.
      only: which streams may be changed at all.
      graph: whether objects may be shared; None for the setting.
      graph_updates: accepted for symmetry: a copy is returned with either value.

    Raises:
      ValueError: if a stream is split already or a number is negative. No stream is changed.
      TypeError: if a number is none.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.with_rngs(nnx.Rngs(params=0, dropout=1), split={"params": 4}, fork="dropout")
      >>> rngs.params.key.shape, rngs.dropout.key.shape
      ((4,), ())
    """
    pairs: list[tuple[Predicate, Derive | None]] = [(Not(only), None)]
    for rules, derivation in ((split, split_key), (broadcast, broadcast_key)):
        if rules is not None:
            pairs.extend(rules_of(rules, derivation, none=None))
    pairs.append((to_predicate(fork), fork_key))
    return _change(node, pairs, graph, graph_updates=False)


def _by_variables(matches: Predicate) -> Predicate:
    """Returns the predicate that holds for a stream if the given one does for its Variables."""

    def matches_stream(path: Path, stream: RngStream) -> bool:
        variables = (("key", stream.key), ("count", stream.count))
        return all(matches((*path, name), variable) for name, variable in variables)

    return matches_stream


def _change(node: Any, pairs: Pairs, graph: bool | None, graph_updates: bool | None) -> Any:
    """Changes the streams of a node, or decorates a function to do so for its arguments."""
    graph = set_graph_mode.get() if graph is None else graph
    updates = set_graph_updates.get() if graph_updates is None else graph_updates
    in_place = graph and updates

    def decorate(function: Callable) -> Callable:
        @boundary
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if in_place:
                with _rekeyed((args, kwargs), pairs, graph, _place_of_argument):
                    return function(*args, **kwargs)
            args, kwargs = _rekeyed_copy((args, kwargs), pairs, graph, _place_of_argument)
            return function(*args, **kwargs)

        return wrapper

    if node is MISSING:
        return decorate
    if _is_function(node):
        return decorate(node)
    return (_rekeyed if in_place else _rekeyed_copy)(node, pairs, graph, place_of)


def _is_function(node: Any) -> bool:
    return callable(node) and not isinstance(node, (Pytree, jtu.Partial))


def _place_of_argument(path: Path) -> str:
    kind, name, *rest = path  # of the pair (args, kwargs)
    return f"at {format_path(tuple(rest), name if kind else f'args[{name}]')} "


def _chosen(
    node: Any, pairs: Pairs, graph: bool | None, place: Callable[[Path], str]
) -> list[tuple[RngStream, Derive]]:
    chosen = []
    for path, stream in streams_of(node, graph):
        derive = first_match(pairs, path, stream)
        if derive is not None:
            require_scalar(stream, place(path))  # for all of them before any is changed
            chosen.append((stream, derive))
    return chosen


def _rekeyed(
    node: Any, pairs: Pairs, graph: bool | None, place: Callable[[Path], str]
) -> SplitBackups:
    backups = []
    for stream, derive in _chosen(node, pairs, graph, place):
        key = derive(stream())
        backups.append((stream, stream.key.get_value(), stream.count.get_value()))
        set_stream(stream, key)
    return SplitBackups(tuple(backups))


def _rekeyed_copy(node: Any, pairs: Pairs, graph: bool | None, place: Callable[[Path], str]) -> Any:
    copy = merge(*split(node, graph=graph), copy=False)
    for stream, derive in _chosen(copy, pairs, graph, place):
        fresh = RngStream(derive(stream()), tag=stream.tag)  # counted by the node's own Variable
        stream.key, stream.count = fresh.key, fresh.count
    return copy
