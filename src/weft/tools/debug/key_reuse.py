"""`rng_reuse`: which streams draw a key that was drawn before."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from weft._core.config import traced_apart
from weft._core.errors import WeftError
from weft._core.trace import find_place, frames
from weft._core.tracebacks import is_internal
from weft._rng.streams import RngStream, watchers

F = TypeVar("F", bound=Callable[..., Any])
Drawn = tuple[bytes, int]
"""What a key is made from: the data of the base key, and the count."""

_MAPPED = frozenset({"vmap", "pmap", "shard_map"})


class KeyReuseError(WeftError, ValueError):
    """A stream drew a key that was drawn before.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(dropout=0)
      >>> with nnx.debug.rng_reuse():
      ...     first = nnx.clone(rngs).dropout()
      ...     second = rngs.dropout()
      Traceback (most recent call last):
        ...
      weft.tools.debug.key_reuse.KeyReuseError: stream 'dropout' drew key 0 at ..., and stream
      'dropout' draws the same one at ...
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """A place where a stream draws, in a program or when Python runs.

    Attributes:
      stream: the stream's name, with its path where it is known.
      line: the user's file and line, and those of its caller.
      most: how often a program may draw the same key here.
      thread: in which thread it was traced, or ran.
    """

    stream: str
    line: str
    most: float
    thread: int


class Detector:
    """Knows which keys were drawn where, in the thread that it was made in."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self._lock = threading.Lock()
        self._first: dict[Drawn, Draw] = {}
        self._times: dict[tuple[Drawn, Draw], int] = {}
        self.error: KeyReuseError | None = None

    def note(self, draw: Draw, drawn: Drawn) -> None:
        """Takes in that a key was drawn."""
        with self._lock:
            times = self._times[drawn, draw] = self._times.get((drawn, draw), 0) + 1
            first = self._first.setdefault(drawn, draw)
            if self.error is not None or (first is draw and times <= draw.most):
                return
            self.error = KeyReuseError(_message(first, draw, drawn[1]))


def _message(first: Draw, again: Draw, count: int) -> str:
    text = f"{first.stream} drew key {count} at {first.line}, and "
    if first is again:
        return (
            f"{text}draws the same one there each time that the program runs, or in each iteration "
            "of a loop: its count is not kept. Compile with `nnx.jit`, which keeps what a function "
            "changes, where plain `jax.jit` does not, and split the stream for a loop, "
            "`nnx.split_rngs(splits=n)`"
        )
    return (
        f"{text}{again.stream} draws the same one at {again.line}: they have the same base key and "
        "count. Make copies that draw others, `rngs.fork()`; give each its own seed, "
        "`nnx.Rngs(params=0, dropout=1)`; do not put counts back, `nnx.reseed(model, dropout=2)`"
    )


_detectors: list[Detector] = []
_lock = threading.Lock()


def _tell(draw: Draw, data: Any, count: Any) -> None:
    drawn = np.asarray(data).tobytes(), int(count)
    for detector in _detectors_of(draw.thread):
        detector.note(draw, drawn)


def _where() -> str:
    """Returns the nearest lines of the user's: where a layer draws tells little of who calls it."""
    found: list[str] = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and len(found) < 2:
        code = frame.f_code
        if not is_internal(code.co_filename):
            found.append(f"{code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return ", called at ".join(found) or "an unknown line"


def _watch(stream: RngStream, key: jax.Array, count: jax.Array) -> None:
    """Is told of each draw; see `weft._rng.streams`."""
    thread = threading.get_ident()
    if not _detectors_of(thread):  # those of others look at what these do
        return
    place = find_place(stream)
    name = f"stream {stream.tag!r}" + (f" ({place[0]})" if place is not None else "")
    where = _where()
    arrays = jax.random.key_data(key), count
    if not any(isinstance(x, Tracer) for x in arrays):
        _tell(Draw(name, where, 1, thread), *arrays)
        _raise(thread)
        return
    transforms = [frame.transform for frame in frames.stack]
    # What is computed again for the gradient is drawn again, twice as often with each `remat`
    # around; `jax.checkpoint` is not seen. Rows of a mapped axis may be meant to be alike.
    most = float("inf") if _MAPPED & {*transforms} else max(2, 2 ** transforms.count("remat"))
    draw = Draw(name, where, most, thread)
    jax.debug.callback(functools.partial(_tell, draw), *arrays)


def _detectors_of(thread: int) -> list[Detector]:
    return [detector for detector in tuple(_detectors) if detector.thread == thread]


def _raise(thread: int) -> None:
    for detector in _detectors_of(thread):
        if detector.error is not None:
            raise detector.error


class rng_reuse:
    """Finds streams that draw a key that was drawn before, in this block or decorated function.

    Two draws from the same base key at the same count give the same numbers: after `nnx.clone` of a
    model with dropout, after counts were put back, where a compiled function does not keep the
    count. The error names both streams and lines. Draws that are not compiled raise at once, others
    at the end; a compiled draw counts as one only when it gives the same key for the third time,
    as the backward pass of `jax.checkpoint` repeats the forward one.

    JAX's own check runs as well, which finds keys (not streams) that are used twice: its error is
    `jax.errors.KeyReuseError`.

    Args:
      keys: whether to let JAX check keys.

    Raises:
      KeyReuseError: if a stream draws a key again.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
      >>> with nnx.debug.rng_reuse():
      ...     for _ in range(3):
      ...         y = nnx.jit(lambda model, x: model(x))(model, jnp.ones(3))
    """

    def __init__(self, *, keys: bool = True):
        self._keys = keys
        self._blocks: list[contextlib.AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        block = self._looking()
        block.__enter__()
        self._blocks.append(block)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._blocks.pop().__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Returns a function each call of which is looked at."""

        @functools.wraps(function, updated=())
        def looked_at(*args: Any, **kwargs: Any) -> Any:
            with self._looking():
                return function(*args, **kwargs)

        return looked_at  # type: ignore[return-value]

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        detector = Detector()
        with _lock:
            _detectors.append(detector)
            if _watch not in watchers:
                watchers.append(_watch)
        try:
            with traced_apart(("rng_reuse", detector.thread)), jax.debug_key_reuse(self._keys):
                yield
            jax.effects_barrier()
        finally:
            with _lock:
                _detectors.remove(detector)
                if not _detectors:
                    watchers.remove(_watch)
        if detector.error is not None:
            raise detector.error
