"""Backups: what the streams inside a node held, to be put back later.

A *node* is a model, an `Rngs`, or any pytree of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import jax

from weft._core.path import Path, format_path
from weft._graph.iterate import iter_graph
from weft._rng.seeds import zero_count
from weft._rng.streams import RngStream

StreamBackup = tuple[RngStream, jax.Array, jax.Array] | tuple[RngStream, jax.Array]


def streams_of(node: Any, graph: bool | None) -> list[tuple[Path, RngStream]]:
    """Returns the streams inside a node with their paths, each once, in the walk's order."""
    return [(path, x) for path, x in iter_graph(node, graph=graph) if isinstance(x, RngStream)]


def place_of(path: Path) -> str:
    """Says where a stream is, for an error."""
    return f"at {format_path(path)} "


def set_stream(stream: RngStream, key: jax.Array, count: jax.Array | None = None) -> None:
    """Writes the two Variables of a stream; the counter is set to 0 where none is given."""
    stream.key.set_value(key)
    stream.count.set_value(zero_count(key) if count is None else count)


@dataclasses.dataclass(frozen=True)
class SplitBackups:
    """What streams held before `split_rngs` or `fork_rngs`; a block that puts it back.

    Attributes:
      backups: per stream a tuple of it, its key and its count.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> with nnx.split_rngs(rngs, splits=3):
      ...     print(rngs.default.key.shape)
      (3,)
      >>> rngs.default.key.shape
      ()
    """

    backups: Sequence[StreamBackup]

    def __iter__(self) -> Iterator[StreamBackup]:
        return iter(self.backups)

    def __enter__(self) -> SplitBackups:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        restore_rngs(self)


def backup_keys(node: Any, /, *, graph: bool | None = None) -> list[StreamBackup]:
    """Returns the base keys of all streams inside a node, for `restore_rngs` to put back.

    The counters are not part of it: keys drawn in between are not drawn again.

    Args:
      node: a model, an `Rngs`, or a pytree of these.
      graph: whether objects may be shared; None for the setting.

    Returns:
      Per stream a tuple of it and its key.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> backups = nnx.backup_keys(rngs)
      >>> nnx.reseed(rngs, default=1)
      >>> nnx.restore_rngs(backups)
    """
    return [(stream, stream.key.get_value()) for _, stream in streams_of(node, graph)]


def restore_rngs(backups: Iterable[StreamBackup], /) -> None:
    """Puts keys, and counters where there are any, back into their streams.

    Args:
      backups: what `split_rngs`, `fork_rngs` or `backup_keys` returned.

    Raises:
      TypeError: if it is anything else.
      ValueError: if it holds a key without a counter for a stream that was split since, whose
        former counter is lost. No stream is changed then.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> backups = nnx.split_rngs(rngs, splits=3)
      >>> nnx.restore_rngs(backups)
      >>> int(rngs.default.count[...])
      1
    """
    if not isinstance(backups, Iterable):
        raise TypeError(_no_backups(backups))
    checked = []
    for backup in backups:
        if not (isinstance(backup, tuple) and backup and isinstance(backup[0], RngStream)):
            raise TypeError(_no_backups(backup))
        stream, key, *rest = backup
        count = rest[0] if rest else stream.count.get_value()
        if count.shape != key.shape:
            raise ValueError(
                f"stream {stream.tag!r} was split after its key was backed up, and the backup "
                "does not hold its counter: restore what the splitting returned, `backups = "
                "nnx.split_rngs(model, splits=N); ...; nnx.restore_rngs(backups)`"
            )
        checked.append((stream, key, count))
    for stream, key, count in checked:
        set_stream(stream, key, count)


def _no_backups(found: Any) -> str:
    return (
        "expected what nnx.split_rngs, nnx.fork_rngs or nnx.backup_keys returned, found "
        f"{type(found).__name__}"
    )
