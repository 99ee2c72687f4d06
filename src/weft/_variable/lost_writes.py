"""Writes that nobody sees: into objects that a plain transformation of JAX made for a function.

JAX hands a function copies of the objects that it is called with, and forgets them when the
function returns: what was written into them is lost, unless it is returned. Whether it was can be
seen when such a Variable goes. It goes while its trace still runs, after JAX has taken apart what
the function returned; if an error ended the function, the traceback keeps it longer.
"""

from __future__ import annotations

import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

from weft._core import trace
from weft._core.tracebacks import call_site, is_of_jax
from weft._variable.keeper import Keeper
from weft._variable.storage import set_keeper

if TYPE_CHECKING:
    from weft._variable.variable import Variable

_FOR_SHAPES = frozenset({"eval_shape", "make_jaxpr_f"})
"""Functions of JAX of which nobody expects that anything is written."""

_OF_TREES = ("tree_util.py", "tree.py")

_warned: set[tuple[str, int]] = set()


class Loan(Keeper):
    """Keeps a Variable that JAX made for a function.

    Attributes:
      written: the line of the last write, None where the value was read since.
    """

    __slots__ = ("_name", "_trace", "written")

    def __init__(self, name: str):
        self.written: tuple[str, int] | None = None
        self._name = name
        self._trace = trace.current()

    def expose(self, variable: Variable) -> None:
        """Notes that somebody reads the value."""
        self.written = None

    def write(self, raw: Any) -> None:
        """Notes a write."""
        self.written = call_site()

    def __del__(self) -> None:
        line = self.written
        if line is None or line in _warned or self._trace != trace.current():
            return
        _warned.add(line)
        warnings.warn_explicit(
            f"what is written here into a Variable of type {self._name} is lost: a transformation "
            "of JAX (jax.jit, jax.grad, jax.vmap, ...) hands its function a copy of the model, and "
            "the function does not return it. Use Weft's, which write into the model that is "
            "passed, `nnx.jit(f)(model, x)`, or return the model, too: `return model, y`",
            UserWarning,
            *line,
        )


def note_loan(variable: Variable) -> None:
    """Watches a Variable that JAX makes now around a tracer, if it is for a function."""
    if not variable._is_passing and _is_for_function():
        set_keeper(variable, Loan(type(variable).__name__))


def _is_for_function() -> bool:
    """Returns whether a transformation of JAX puts arguments together, and no `jax.tree.map`."""
    frame: types.FrameType | None = sys._getframe(3)
    while frame is not None and frame.f_code.co_filename.endswith(_OF_TREES):
        frame = frame.f_back
    is_transform = False
    while frame is not None and is_of_jax(frame.f_code.co_filename):
        if frame.f_code.co_name in _FOR_SHAPES:
            return False
        is_transform, frame = True, frame.f_back
    return is_transform
