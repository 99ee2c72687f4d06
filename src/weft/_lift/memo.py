"""Keeping transformed functions between calls, so that JAX finds what it traced before.

JAX remembers a trace by the identity of the function. `cond`, `scan` and the like make a new
function on every call; `run_kept` keeps it for the very functions that the user gave: the same
function object may use a trace again, one that is made anew is traced anew, whatever it looks like,
as what a function reads through globals, classes and modules cannot be seen. Where a trace took in
anything that was no argument of it (a tracer, an array, the value of a Variable that a closure
reaches) it is not kept, as that may be another one at the next call; nor where it brought out a
static value that may change in place, as at the next call that has to be as the function makes it.

Functions are referred to weakly, and what was kept for them goes when one of them goes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from weft._core.caches import forgets
from weft._core.static import key_of
from weft._core.trace import frames

_MOST_FUNCTIONS = 512
_MOST_OPTIONS = 16


class Made(NamedTuple):
    """A function that is kept, jitted, and a list that is longer after each trace of it."""

    jitted: Any
    traces: list[None]


class Kept(NamedTuple):
    """What is kept for some functions: weak references to them, and by options what was made."""

    functions: tuple[Callable[[], Any], ...]
    made: dict[Hashable, Made]


_kept: dict[tuple[int, ...], Kept] = {}


def run_kept(
    functions: tuple[Callable[..., Any], ...],
    options: tuple[Any, ...],
    make: Callable[..., Callable[..., Any]],
    spec: Hashable,
    *arrays: Any,
) -> Any:
    """Calls `make(*functions)` or what it made before for the same functions and equal options.

    Args:
      functions: the user's functions.
      options: what else decides what is made; the transform's name first.
      make: makes a function of `spec` and `arrays`, which returns groups and an exit; it may not
        hold the user's functions.
      spec: the static argument.
      *arrays: pytrees of arrays.

    Returns:
      What the function returns that was made.
    """
    kept = _find(functions)
    if kept is None:
        return make(*functions)(spec, *arrays)
    key = key_of(options)
    made = kept.made.get(key)
    if made is None:
        if len(kept.made) >= _MOST_OPTIONS:
            kept.made.clear()
        made = kept.made[key] = _make(options[0], kept.functions, make)
    before, around, frames.has_captured = len(made.traces), frames.has_captured, False
    try:
        out = made.jitted(spec, *arrays)
        if len(made.traces) > before:
            is_open = frames.has_captured or any(True for _ in out[1].watched)
            if is_open or _takes_in_more(made.jitted, spec, arrays):
                kept.made.pop(key, None)
    finally:
        frames.has_captured |= around
    return out


def _find(functions: tuple[Callable[..., Any], ...]) -> Kept | None:
    """Returns what is kept for some functions, None where they cannot be referred to weakly."""
    key = tuple(map(id, functions))
    kept = _kept.get(key)
    if kept is not None:
        return kept

    def forget(_: Any) -> None:
        _kept.pop(key, None)

    try:
        references = tuple(weakref.ref(f, forget) for f in functions)
    except TypeError:
        return None
    if len(_kept) >= _MOST_FUNCTIONS:
        _kept.pop(next(iter(_kept)), None)  # the oldest
    return _kept.setdefault(key, Kept(references, {}))


def _make(
    name: str, references: tuple[Callable[[], Any], ...], make: Callable[..., Callable[..., Any]]
) -> Made:
    traces: list[None] = []

    def traced(spec: Hashable, *arrays: Any) -> Any:
        traces.append(None)
        return make(*(get() for get in references))(spec, *arrays)

    traced.__name__ = traced.__qualname__ = name
    return Made(jax.jit(traced, static_argnums=0, inline=True), traces)


def _takes_in_more(jitted: Any, spec: Hashable, arrays: tuple[Any, ...]) -> bool:
    """Returns whether a function that was just traced takes in more than its arguments."""
    jaxpr = jitted.trace(spec, *arrays).jaxpr  # JAX has it in its cache
    is_more = len(jaxpr.in_avals) > len(jax.tree.leaves(arrays))  # tracers become arguments
    return is_more or any(isinstance(x, (jax.Array, Tracer)) for x in jaxpr.consts)


@forgets
def clear() -> None:
    """Forgets what is kept."""
    _kept.clear()
