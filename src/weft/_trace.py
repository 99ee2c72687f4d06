"""Which JAX trace is running, and which of Weft's transforms started it.

Every Variable and object remembers the *trace* it was made in. Writing it while another trace runs
would leak a tracer or lose the write, so it is an error. A *frame* stands for one running Weft
transform and is what an error names.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.core
from jax.extend.core import find_top_trace, get_opaque_trace_state

OpaqueTraceState = Any

current: Callable[[], OpaqueTraceState] = get_opaque_trace_state
"""Returns the running JAX trace, as an opaque value to be compared with `==`."""

with jax.core.eval_context():
    OUTERMOST = find_top_trace(())
"""What `find_top_trace(())` returns where no JAX transformation is running."""


def is_outermost() -> bool:
    """Returns whether no JAX transformation is running."""
    return find_top_trace(()) is OUTERMOST


class Frame(NamedTuple):
    """One running transform: its name, as in `nnx.jit`, its function, the trace it runs in."""

    transform: str
    function: str
    trace: OpaqueTraceState


class _Frames(threading.local):
    def __init__(self) -> None:
        self.stack: list[Frame] = []


frames = _Frames()


@contextlib.contextmanager
def running(transform: str, function: str) -> Iterator[None]:
    """Marks a transform as running in this thread, for errors to name."""
    frames.stack.append(Frame(transform, function, current()))
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
    name = f"nnx.{frame.transform} of {frame.function!r}"
    return name if frame.trace == current() else f"{_PLAIN} inside {name}"
