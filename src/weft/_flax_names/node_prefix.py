"""Prefixes of whole models, worked out once: `prefix`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from weft._core.errors import CycleError
from weft._core.path import Path, key_of_entry
from weft._graph.api import take_apart
from weft._graph.prefix import FilteredPrefix, PrefixMapping
from weft._graph.state import from_flat_state
from weft._object.pytree import Pytree
from weft._variable.variable import Variable, is_variable


def prefix(
    node: Any,
    filter_map: Mapping[Any, Any] | PrefixMapping | Callable[[Path, Any], Any],
    /,
    *,
    graph: bool | None = None,
) -> Any:
    """Builds a prefix of a model: an axis, a sharding, ... for each of its Variables.

    Args:
      node: an object, or a pytree of objects and arrays.
      filter_map: a mapping from filters to prefixes, the first match decides; a `StateAxes` or
        `StateSharding`; or a function `(path, value) -> prefix`. Paths begin at `node`.
      graph: False to refuse shared references; None for the setting.

    Returns:
      A tree of the structure of `node` with prefixes in the places of Variables and arrays: a
      prefix for `in_axes`, `out_axes`, `in_shardings`, ... of JAX's transforms and Weft's. An
      object with cycles, which has no such tree, gets a prefix that goes by paths, for Weft's.

    Raises:
      PrefixError: if no filter matches, naming the path.
      SharedReferenceError: where references are shared and may not be.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> axes = nnx.prefix(model, {nnx.PathContains("bias"): 0, ...: None})
      >>> axes.bias, axes.kernel
      (0, None)
    """
    choose = _as_function(filter_map)

    def prefix_of(jax_path: Any, part: Any) -> Any:
        path = tuple(map(key_of_entry, jax_path))
        if not isinstance(part, Pytree):
            return choose(path, part)
        content = take_apart(part, graph)

        def inside(jax_path: Any, leaf: Any) -> Any:
            return choose((*path, *map(key_of_entry, jax_path)), leaf)

        try:
            return jax.tree.map_with_path(inside, part, is_leaf=is_variable)
        except CycleError:
            chosen = ((inner, choose((*path, *inner), leaf)) for inner, leaf in content.items())
            return FilteredPrefix(from_flat_state(chosen))

    is_leaf = lambda x: isinstance(x, (Pytree, Variable))  # noqa: E731
    return jax.tree.map_with_path(prefix_of, node, is_leaf=is_leaf)


def _as_function(filter_map: Any) -> Callable[[Path, Any], Any]:
    if isinstance(filter_map, PrefixMapping):
        return filter_map.map_prefix
    return FilteredPrefix(filter_map).map_prefix if isinstance(filter_map, Mapping) else filter_map
