"""Which JAX trace is running, and which of Weft's transforms started it.

Every Variable and object remembers the *trace* it was made in. Writing it while another trace runs
would leak a tracer or lose the write, so it is an error. A *frame* stands for one running Weft
transform and is what an error names.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from weft._core.jax_names import OUTERMOST, OUTSIDE, find_top_trace, state_of_trace
from weft._core.path import format_path
from weft._core.tracebacks import name_lines_of_users

OpaqueTraceState = Any


def current() -> OpaqueTraceState:
    """Returns the running JAX trace, as an opaque value to be compared with `==`."""
    return OUTSIDE if find_top_trace(()) is OUTERMOST else state_of_trace()


def is_outermost() -> bool:
    """Returns whether no JAX transformation is running."""
    return find_top_trace(()) is OUTERMOST


class Frame(NamedTuple):
    """One running transform.

    Attributes:
      transform: its name, as in `nnx.jit`.
      function: its function.
      trace: the trace it runs in.
      objects: the objects and Variables that the function was given.
      spots: where each of these is.
    """

    transform: str
    function: str
    trace: OpaqueTraceState
    objects: Sequence[Any] = ()
    spots: Sequence[Any] = ()

    @property
    def name(self) -> str:
        return f"nnx.{self.transform} of {self.function!r}"


class _Frames(threading.local):
    """The transforms that run in a thread.

    Attributes:
      stack: the innermost last.
      has_captured: whether a Variable from outside of one, which holds no array, was read in it.
    """

    def __init__(self) -> None:
        self.stack: list[Frame] = []
        self.has_captured = False


frames = _Frames()


@contextlib.contextmanager
def running(
    transform: str, function: str, objects: Sequence[Any] = (), spots: Sequence[Any] = ()
) -> Iterator[None]:
    """Marks a transform as running in this thread, for errors to name it and what it was given."""
    name_lines_of_users()
    frames.stack.append(Frame(transform, function, current(), objects, spots))
    try:
        yield
    finally:
        frames.stack.pop()


_PLAIN = "a JAX transformation (jax.jit, jax.grad, jax.vmap, ...)"


def describe() -> str:
    """Names the innermost running transform, or JAX's where Weft started none."""
    if not frames.stack:
        return _PLAIN
    frame = frames.stack[-1]
    return frame.name if frame.trace == current() else f"{_PLAIN} inside {frame.name}"


def find_place(obj: Any) -> tuple[str, str] | None:
    """Returns the path of an object among the arguments of a running transform, and its name."""
    for frame in reversed(frames.stack):
        for other, spot in zip(frame.objects, frame.spots, strict=False):
            if other is obj:
                return format_path(spot.path), frame.name
    return None
