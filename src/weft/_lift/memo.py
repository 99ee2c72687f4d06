"""Keeping transformed functions between calls, so that JAX finds what it traced before.

JAX remembers a trace by the identity of the function. `cond`, `scan` and the like make a new
function on every call; `compiled_once` keeps it, under the key of the user's functions and of all
that these refer to, as long as none of it holds data: an array, a Variable or an object may be
another one at the next call, or belong to a trace that has ended. What is reached through the
attributes of a module or a class is not looked at, as little as `jax.jit` does.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import threading
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from weft._module.kinds import holds_data
from weft._static import ByIdentity, key_of

_LIMIT = 512
_kept: collections.OrderedDict[Hashable, Callable[..., Any]] = collections.OrderedDict()
_lock = threading.Lock()
_PLAIN = (
    *(type(None), str, bytes, bool, int, float, complex, np.dtype, enum.Enum, types.EllipsisType),
    *(type, types.ModuleType, types.UnionType, types.GenericAlias),
)
# Functions of libraries hold nothing of the user's, unless they wrap a function of the user.
_LIBRARIES = frozenset({"builtins", "functools", "jax", "jaxlib", "math", "numpy", "operator"})


def key_of_references(functions: tuple[Callable[..., Any], ...]) -> Hashable | None:
    """Returns a key of functions and of all that they refer to, None if any of it holds data."""
    key: list[Hashable] = []
    return tuple(key) if _collect(functions, key, {}) else None


def _collect(value: Any, key: list[Hashable], seen: dict[int, int]) -> bool:
    """Adds the key of a value and of all that it refers to; returns whether none holds data."""
    if isinstance(value, _PLAIN):
        key.append(key_of(value))
        return True
    if id(value) in seen:
        key.append(seen[id(value)])
        return True
    seen[id(value)] = len(seen)
    if isinstance(value, types.FunctionType) and not _is_from_library(value):
        key.append((value.__code__, ByIdentity(value.__globals__)))
        return all(_collect(part, key, seen) for part in _references(value))
    inside = _inside(value)
    if inside is None:
        return False
    key.append(key_of(value))
    return all(_collect(part, key, seen) for part in inside)


def _is_from_library(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] in _LIBRARIES


def _inside(value: Any) -> list[Any] | None:
    """Returns what a value refers to, None where that cannot be seen."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__self__]
    if isinstance(value, (tuple, list, frozenset, set)):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    if holds_data(value):
        return None
    parameters = vars(type(value)).get("__dataclass_params__")
    if parameters is not None and parameters.eq:
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    package = type(value).__module__.partition(".")[0]
    if package == "weft":  # lifts, filters, prefixes
        return list(vars(value).values()) if hasattr(value, "__dict__") else None
    if package not in _LIBRARIES or not callable(value):
        return None
    wrapped = getattr(value, "__wrapped__", None)
    return [] if wrapped is None else [wrapped]


def _references(function: types.FunctionType) -> Iterator[Any]:
    """Returns what a function refers to: closure, defaults, and globals by name."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # the cell is still empty
            yield None
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from _globals_of(function.__code__, function.__globals__)


def _globals_of(code: types.CodeType, namespace: dict[str, Any]) -> Iterator[Any]:
    # Names of attributes are among them; a global of the same name is looked at in vain.
    for name in code.co_names:
        if name in namespace:
            yield namespace[name]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant, namespace)


def compiled_once(
    functions: tuple[Callable[..., Any], ...],
    options: Any,
    make: Callable[[], Callable[..., Any]],
) -> Callable[..., Any]:
    """Returns `make()`, or what it made for equal functions and options before, jitted.

    The first argument of the made function is static.
    """
    references = key_of_references(functions)
    if references is None:
        return make()
    key = (references, key_of(options))
    with _lock:
        known = _kept.get(key)
        if known is not None:
            _kept.move_to_end(key)
            return known
    function = make()

    def traced(*args: Any) -> Any:
        out = function(*args)
        # A function may change what it refers to, such as a count of its traces. That is no
        # reason to trace it again: it is kept under what it refers to now as well.
        _keep((key_of_references(functions), key[1]), made)
        return out

    made = jax.jit(traced, static_argnums=0, inline=True)
    return _keep(key, made)


def _keep(key: Hashable, made: Callable[..., Any]) -> Callable[..., Any]:
    with _lock:
        known = _kept.setdefault(key, made)
        while len(_kept) > _LIMIT:
            _kept.popitem(last=False)
    return known


def clear() -> None:
    """Forgets all functions that were kept."""
    with _lock:
        _kept.clear()
