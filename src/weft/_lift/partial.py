"""Binding leading arguments of functions of objects.

A call of a function from `nnx.jit` costs the same with bound arguments as without, so these only
bind; they exist for programs that were written where it did not. The arguments are bound for the
stages of compiling ahead of time as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

from weft._lift.jit import JitWrapped, jit

R = TypeVar("R")


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


def _bind(f: Callable[..., Any], bound: tuple[Any, ...]) -> Any:
    made: Any = functools.partial(f, *bound)
    if not isinstance(f, JitWrapped):
        return made

    def trace(*args: Any, **kwargs: Any) -> BoundStage:
        return BoundStage(f.trace(*bound, *args, **kwargs), bound)

    made.trace = trace
    made.lower = lambda *args, **kwargs: trace(*args, **kwargs).lower()
    made.eval_shape = functools.partial(f.eval_shape, *bound)
    made.cache_info = f.cache_info
    return made


@overload
def cached_partial(
    f: JitWrapped[..., R],
    *cached_args: Any,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> JitWrapped[..., R]: ...
@overload
def cached_partial(
    f: Callable[..., R],
    *cached_args: Any,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Callable[..., R]: ...
def cached_partial(
    f: Callable[..., Any],
    *cached_args: Any,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Callable[..., Any]:
    """Binds leading arguments of a function, such as one from `nnx.jit`.

    Args:
      f: the function.
      *cached_args: the arguments: objects or others. They may change between calls.
      graph: accepted for compatibility; an option of the transform that made `f`.
      graph_updates: likewise.

    Returns:
      A function of the other arguments; of one from `nnx.jit`, with `lower` and the other stages.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> forward = nnx.jit(lambda model, x: model(x))
      >>> forward = nnx.cached_partial(forward, nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> forward(jnp.ones((1, 2))).shape
      (1, 3)
    """
    return _bind(f, cached_args)


def jit_partial(fun: Callable[..., R], *partial_args: Any, **options: Any) -> JitWrapped[..., R]:
    """Compiles a function as `nnx.jit` does, and binds its leading arguments.

    Args:
      fun: the function.
      *partial_args: the arguments to bind: objects or others.
      **options: those of `nnx.jit`; positions count from the first bound argument.

    Returns:
      A function of the other arguments, with `lower` and the other stages.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.jit_partial(lambda model, x: model(x), model)(jnp.ones((1, 2))).shape
      (1, 3)
    """
    return _bind(jit(fun, **options), partial_args)
