"""Leaves by path: the one reading of the trees that the training parts are given."""

from __future__ import annotations

from typing import Any

import jax
import jax.tree_util as jtu

from weft._core.filters import Filter
from weft._core.path import Path, key_of_entry
from weft._graph import State, state, to_flat_state
from weft._module import Pytree
from weft._variable.variable import Variable, is_variable, raw_value


def strip(tree: Any) -> Any:
    """Returns the tree with the raw value in the place of each Variable."""
    return jax.tree.map(raw_value, tree, is_leaf=is_variable)


def by_path(tree: Any, *, only: Filter = ..., graph: bool | None = None) -> dict[Path, Any]:
    """Returns the leaves of a State, of objects or of any other tree, by path.

    Args:
      tree: a State, an object or container of objects, or a tree of arrays and Variables.
      only: which leaves of objects are meant.
      graph: as for `nnx.state`.

    Returns:
      Variables, and arrays that are in none, by path.
    """
    stops = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, (Variable, Pytree)))
    if any(isinstance(stop, Pytree) for stop in stops):
        tree = state(tree, only, graph=graph)
    if isinstance(tree, State):
        return dict(to_flat_state(tree))
    leaves = jtu.tree_leaves_with_path(tree, is_leaf=is_variable)
    return {tuple(map(key_of_entry, path)): leaf for path, leaf in leaves}
