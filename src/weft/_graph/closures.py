"""Closures: which variables of an outer function can still change under its inner functions.

An inner function reads a variable of the function around it, its *owner*, through a *cell*. Only
the owner can bind the variable anew: its own code, while a call of it runs, and functions inside of
it which declare the variable `nonlocal`. Where the owner is found, and there is neither, the
variable is *settled*. That somebody stores to the cell itself is not considered.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterator

_BINDING = frozenset({dis.opmap["STORE_DEREF"], dis.opmap["DELETE_DEREF"]})
_RESUMED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def unsettled(function: types.FunctionType) -> list[types.CellType]:
    """Returns the cells of a function whose variables may be bound anew."""
    closure = function.__closure__ or ()
    if not closure:
        return []
    owners = _owners(function)
    running = _running() if owners else frozenset()
    return [
        cell
        for name, cell in zip(function.__code__.co_freevars, closure, strict=True)
        if not any(_is_settled(name, owner, running) for owner in owners)
    ]


def _owners(function: types.FunctionType) -> tuple[types.CodeType, ...]:
    """Returns the code of the functions around one, from the module's on; empty if not found."""
    outer, is_inner, _ = function.__qualname__.partition(".<locals>.")
    found = sys.modules.get(function.__module__) if is_inner else None
    for name in outer.split("."):
        found = inspect.getattr_static(found, name, None)
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    if isinstance(found, types.FunctionType):
        found = inspect.unwrap(found)
    code = getattr(found, "__code__", None)
    return () if code is None else _around(function.__code__, code)


@functools.lru_cache(256)
def _around(inner: types.CodeType, outer: types.CodeType) -> tuple[types.CodeType, ...]:
    for code in _codes_in(outer):
        if code is inner:
            return (outer,)
        found = _around(inner, code)
        if found:
            return (outer, *found)
    return ()


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    return (x for x in code.co_consts if isinstance(x, types.CodeType))


def _is_settled(name: str, owner: types.CodeType, running: frozenset[types.CodeType]) -> bool:
    is_own = name in owner.co_cellvars and not owner.co_flags & _RESUMED
    return is_own and owner not in running and not _is_bound_inside(name, owner)


@functools.lru_cache(256)
def _is_bound_inside(name: str, owner: types.CodeType) -> bool:
    """Returns whether code inside of a function binds one of its variables."""
    return any(
        name in code.co_freevars and (_binds(name, code) or _is_bound_inside(name, code))
        for code in _codes_in(owner)
    )


def _binds(name: str, code: types.CodeType) -> bool:
    if _BINDING.isdisjoint(code.co_code[::2]):  # every other byte is an instruction
        return False
    return any(i.opcode in _BINDING and i.argval == name for i in dis.get_instructions(code))


def _running() -> frozenset[types.CodeType]:
    """Returns the code that runs in any thread."""
    return frozenset().union(*map(_stack_of, sys._current_frames().values()))


def _stack_of(frame: types.FrameType | None) -> Iterator[types.CodeType]:
    while frame is not None:  # a frame that were still held at the end would hold itself
        yield frame.f_code
        frame = frame.f_back
