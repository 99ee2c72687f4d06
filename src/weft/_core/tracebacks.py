"""Whose line it is: tracebacks, warnings and places of creation name the user's.

A frame is *internal* if its code is in Weft, in JAX, or in one of the modules of Python that both
call users' functions through. JAX takes its own frames out of tracebacks; a *boundary* does so with
all internal ones. `WEFT_TRACEBACKS=full` in the environment leaves them in.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])

_WEFT = os.path.dirname(os.path.dirname(__file__)) + os.sep
_JAX = os.path.dirname(jax.__file__) + os.sep
_BETWEEN = (functools.__file__, contextlib.__file__)
_config: Any = jax.config


@functools.cache
def name_lines_of_users() -> None:
    """Lets JAX's errors and programs say of operations in which line of the user's they are.

    Called when a function is first traced: what it imports takes long.
    """
    from weft._core.jax_names import register_exclusion

    register_exclusion(_WEFT)


@functools.cache
def is_internal(filename: str) -> bool:
    """Returns whether code in a file is not the user's."""
    return filename.startswith((_WEFT, _JAX)) or filename in _BETWEEN


def is_of_jax(filename: str) -> bool:
    """Returns whether code in a file is JAX's."""
    return filename.startswith(_JAX)


def call_site() -> tuple[str, int] | None:
    """Returns file and line of the nearest caller whose code is the user's."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not is_internal(filename):
            return filename, frame.f_lineno
        frame = frame.f_back
    return None


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the nearest line of the user's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_internal(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level + 1)


def trim(error: BaseException) -> None:
    """Takes internal frames out of the tracebacks of an error, and of those that led to it.

    It is about to be raised again. JAX's frames stay where `jax_traceback_filtering` is off.
    """
    if os.environ.get("WEFT_TRACEBACKS", "").strip().lower() == "full":
        return
    before, seen = [error], set()
    while before:
        error = before.pop()
        seen.add(id(error))
        error.__traceback__ = _without_internal(error.__traceback__)
        chain = (error.__cause__, error.__context__)
        before += [e for e in chain if e is not None and id(e) not in seen]


def trim_call(
    error: BaseException, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
) -> None:
    """As `trim`, of an error of a call; says which of its arguments are gone, if JAX misses any."""
    if isinstance(error, (RuntimeError, ValueError)) and "deleted" in str(error):
        from weft._core.deleted import explain_deleted

        explain_deleted(error, function, args, kwargs)
    trim(error)


def _without_internal(traceback: types.TracebackType | None) -> types.TracebackType | None:
    without_jax = _config.jax_traceback_filtering != "off"
    frames = []
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if not is_internal(filename) or (is_of_jax(filename) and not without_jax):
            frames.append(traceback)
        traceback = traceback.tb_next
    kept = None
    for tb in reversed(frames):
        kept = types.TracebackType(kept, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)
    return kept


def boundary(function: F) -> F:
    """Makes a function one through which errors come out without internal frames."""

    @functools.wraps(function)
    def at_boundary(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if type(error) is TypeError and _is_of_call(error):
                from weft._core.foreign_arguments import explain

                explain(error, function, args, kwargs)
            trim_call(error, function, args, kwargs)
            raise

    return at_boundary  # type: ignore[return-value]


def _is_of_call(error: TypeError) -> bool:
    """Returns whether a function was not even entered, as its arguments do not fit."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def bound_methods(cls: type) -> None:
    """Makes the constructor and the public methods of a class boundaries."""
    for name, value in list(vars(cls).items()):
        is_public = name in ("__init__", "__call__") or not name.startswith("_")
        if is_public and isinstance(value, types.FunctionType):
            setattr(cls, name, boundary(value))


def transformed(function: Callable[..., Any]) -> Callable[[F], F]:
    """Gives what a transform returns the name of the function that it was given."""

    def wrap(new: F) -> F:
        named: Any = functools.update_wrapper(new, function, updated=())
        return boundary(named)

    return wrap
