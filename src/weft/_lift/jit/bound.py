"""Functions of `nnx.jit` with bound leading arguments: the object of a method, or others.

They are partials, and so belong to an object that keeps one as an attribute in the way of all
partials and methods: a copy of the object calls the copy.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any


class BoundStage:
    """A stage of compiling ahead of time, and those after it, with bound leading arguments."""

    def __init__(self, stage: Any, bound: tuple[Any, ...]):
        self._stage = stage
        self._bound = bound

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._stage, name)

    def lower(self, *args: Any, **kwargs: Any) -> BoundStage:
        """Lowers to the compiler's input language."""
        return BoundStage(self._stage.lower(*args, **kwargs), self._bound)

    def compile(self, *args: Any, **kwargs: Any) -> BoundStage:
        """Compiles for the devices at hand."""
        return BoundStage(self._stage.compile(*args, **kwargs), self._bound)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._stage(*self._bound, *args, **kwargs)


class BoundJit(functools.partial):
    """A function of `nnx.jit` whose leading arguments are bound; a `JitWrapped` itself."""

    if TYPE_CHECKING:

        @property
        def func(self) -> Any: ...

    def __get__(self, obj: Any, kind: type | None = None, /) -> BoundJit:
        return self  # as a bound method

    def trace(self, *args: Any, **kwargs: Any) -> BoundStage:
        """Traces the function for arguments, without running it."""
        return BoundStage(self.func.trace(*self.args, *args, **kwargs), self.args)

    def lower(self, *args: Any, **kwargs: Any) -> BoundStage:
        """Lowers the function for arguments, without running it."""
        return self.trace(*args, **kwargs).lower()

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Returns shapes and dtypes of what the function returns."""
        return self.func.eval_shape(*self.args, *args, **kwargs)

    def cache_info(self) -> Any:
        """Returns how often the function was traced, how often not, and why each time."""
        return self.func.cache_info()
