"""Keeping transformed functions between calls, so that JAX finds what it traced before.

JAX remembers a trace by the identity of the function. `cond`, `scan` and the like make a new
function on every call; `compiled_once` keeps it, under the key of the user's functions, as long as
these close over nothing that could hold a tracer.
"""

from __future__ import annotations

import collections
import functools
import threading
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax

from weft._module.kinds import holds_data
from weft._static import key_of

_LIMIT = 512
_kept: collections.OrderedDict[Hashable, Callable[..., Any]] = collections.OrderedDict()
_lock = threading.Lock()
_PLAIN = (str, bytes, bool, int, float, complex, type, types.ModuleType, types.BuiltinFunctionType)


def closes_over_nothing_traced(value: Any, active: frozenset[int] = frozenset()) -> bool:
    """Returns whether a function can be seen to close over static values only."""
    if value is None or isinstance(value, _PLAIN) or id(value) in active:
        return True
    active = active | {id(value)}
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        inside = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return all(closes_over_nothing_traced(part, active) for part in inside)
    if isinstance(value, functools.partial):
        inside = [value.func, *value.args, *value.keywords.values()]
        return all(closes_over_nothing_traced(part, active) for part in inside)
    if isinstance(value, (tuple, list, frozenset, set)):
        return all(closes_over_nothing_traced(part, active) for part in value)
    if isinstance(value, dict):
        return all(closes_over_nothing_traced(part, active) for part in value.values())
    if holds_data(value):
        return False
    # Functions of libraries are objects of their own classes; they hold no arrays of the user.
    return callable(value) and type(value).__module__.partition(".")[0] in ("jax", "jaxlib")


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def compiled_once(
    functions: tuple[Callable[..., Any], ...],
    options: Hashable,
    make: Callable[[], Callable[..., Any]],
) -> Callable[..., Any]:
    """Returns `make()`, or what it made for equal functions and options before, jitted.

    The first argument of the made function is static.
    """
    if not all(map(closes_over_nothing_traced, functions)):
        return make()
    key = (tuple(map(key_of, functions)), options)
    with _lock:
        found = _kept.get(key)
        if found is not None:
            _kept.move_to_end(key)
            return found
    made = jax.jit(make(), static_argnums=0, inline=True)
    with _lock:
        found = _kept.setdefault(key, made)
        while len(_kept) > _LIMIT:
            _kept.popitem(last=False)
    return found
