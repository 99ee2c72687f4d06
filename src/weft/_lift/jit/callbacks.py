"""Callbacks: programs that call back to the host while they run.

A *callback* is a Python function of the user's that a program calls. It may read the very objects
that the program was given, and it may fail when the program has begun. `jax.debug.print` calls
nothing of the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CALLBACKS = frozenset({"debug_callback", "io_callback", "pure_callback"})


def has_callbacks(jaxpr: Any) -> bool:
    """Returns whether a jaxpr, or one inside of it, calls a Python function of the user's."""
    found = list(_bodies_in(jaxpr))
    seen = set(map(id, found))
    while found:
        for equation in found.pop().eqns:
            if equation.primitive.name in _CALLBACKS:
                return True
            for value in equation.params.values():
                for body in _bodies_in(value):
                    if id(body) not in seen:
                        seen.add(id(body))
                        found.append(body)
    return False


def _bodies_in(value: Any) -> Iterator[Any]:
    """Returns the jaxprs that a value is or holds."""
    from weft._core.jax_names import ClosedJaxpr, Jaxpr  # takes long to import

    if isinstance(value, ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, Jaxpr):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _bodies_in(part)
