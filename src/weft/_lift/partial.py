"""Binding leading arguments of functions of objects.

A call of a function from `nnx.jit` costs the same with bound arguments as without, so these only
bind; they exist for programs that were written where it did not. The arguments are bound for the
stages of compiling ahead of time as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

from weft._lift.jit.bound import BoundJit
from weft._lift.jit.jit import JitWrapped, jit

R = TypeVar("R")


def _bind(f: Callable[..., Any], bound: tuple[Any, ...]) -> Any:
    kind = BoundJit if isinstance(f, JitWrapped) else functools.partial
    return kind(f, *bound)


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
