"""Transformations of JAX by hand: `split_inputs` around them, `merge_inputs` inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

from weft._core.types import MISSING
from weft._flax_names.node_states import clear_non_graph_nodes, from_tree, to_tree
from weft._flax_names.round_trips import update_context

_TAG = "split_merge_inputs"


def split_inputs(f: Any = MISSING, *, ctxtag: Hashable = _TAG) -> Any:
    """Lets a function of values take objects; around a transformation of JAX.

    What it is put around must call, with the values that it is given, what `merge_inputs`
    returned. `nnx.jit` and the other transforms do this themselves.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      ctxtag: the tag of the update context.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> from weft.transforms import general
      >>> @general.split_inputs
      ... @jax.jit
      ... @general.merge_inputs
      ... def double(model):
      ...     model.kernel[...] *= 2
      >>> double(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def split(*args: Any) -> Any:
            with update_context(ctxtag):
                found = function(*to_tree(args, ctxtag=ctxtag))
                return from_tree(found, ctxtag=ctxtag, is_inner=False)[1]

        return split

    return wrap if f is MISSING else wrap(f)


def merge_inputs(f: Any = MISSING, *, ctxtag: Hashable = _TAG) -> Any:
    """Makes a function of objects one of values, which returns its arguments, too.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      ctxtag: the tag of the update context.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> from weft.transforms import general
      >>> step = general.merge_inputs(lambda counter: counter.n + 1)
      >>> general.split_inputs(jax.jit(step))(nnx.Dict(n=nnx.Variable(1))).item()
      2
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def merge(*trees: Any) -> Any:
            args = from_tree(trees, ctxtag=ctxtag, is_inner=True)
            out = function(*args)
            return to_tree((clear_non_graph_nodes(args), out), ctxtag=ctxtag)

        return merge

    return wrap if f is MISSING else wrap(f)
