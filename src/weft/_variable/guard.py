"""What a running transform forbids of a Variable from outside: writing it, reading it unseen.

A Variable belongs to the trace that it was made in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
from jax.core import Tracer

from weft._core import trace
from weft._core.errors import TraceContextError
from weft._core.tracebacks import warn

if TYPE_CHECKING:
    from weft._variable.variable import Variable


def check_write(variable: Variable) -> None:
    """Raises TraceContextError if the Variable does not belong to the running trace."""
    if variable._trace != trace.current():
        raise TraceContextError(
            f"cannot write {name_of(variable)} from inside {trace.describe()}: it was captured "
            "from outside, and the write would be lost or leak a tracer. Pass the object that "
            "holds it as an argument of the transformed function (use `nnx.jit`, `nnx.grad`, ... "
            "for functions that update objects): `nnx.jit(f)(model, x)`"
        )


def name_of(variable: Variable) -> str:
    shape = getattr(variable._raw, "shape", None)
    name = f"{type(variable).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
    place = trace.find_place(variable)
    if place is not None:
        name += f" ({place[0]} of {place[1]})"
    elif variable._origin is not None:
        name += f" (made at {variable._origin[0]}:{variable._origin[1]})"
    return name


_COMPILING = ("jit", "pmap")
_warned_captures: set[tuple[str, str]] = set()


def warn_if_captured(variable: Variable) -> None:
    """Notes the reading of a Variable that is no array; warns if a compiled program reads it.

    An array from outside is found in what JAX traced, a Python number is not.
    """
    frame = trace.frames.stack[-1]
    if not isinstance(variable._slot, jax.Array):
        made_inside = variable._trace in (frame.trace, trace.current())
        trace.frames.has_captured |= not made_inside
    if frame.transform not in _COMPILING or frame[:2] in _warned_captures:
        return
    made_inside = variable._trace in (frame.trace, trace.current())
    if made_inside or isinstance(variable._raw, Tracer):
        return
    _warned_captures.add(frame[:2])
    warn(
        f"{name_of(variable)} is read inside {trace.describe()} but is not an argument: its "
        "value becomes a constant of the compiled program, and later changes of it are not "
        "seen. Pass the object that holds it as an argument."
    )
