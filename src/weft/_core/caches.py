"""Caches: what is remembered for the whole process, and how all of it is forgotten.

A module that remembers more than the objects it is about keep themselves has a function `clear`,
which it *forgets* by. What an object remembers (its plans, its content) goes with it.
"""

from collections.abc import Callable

import jax

_clears: list[Callable[[], None]] = []


def forgets(clear: Callable[[], None]) -> Callable[[], None]:
    """Makes `clear_caches` call a function."""
    _clears.append(clear)
    return clear


def clear_caches() -> None:
    """Forgets what was traced, compiled and looked up; the next calls find all of it out anew.

    Calls `jax.clear_caches()`, which drops the programs of JAX's and of Weft's functions, and
    empties what Weft remembers of functions, classes and static values. Results do not change.

    Example:
      >>> import weft as nnx
      >>> double = nnx.jit(lambda x: 2.0 * x)
      >>> _ = double(1.0), double(1.0)
      >>> nnx.clear_caches()
      >>> _ = double(1.0)
      >>> double.cache_info().traces
      2
    """
    for clear in _clears:
        clear()
    jax.clear_caches()
