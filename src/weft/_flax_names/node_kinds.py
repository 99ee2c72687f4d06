"""Questions about values that code of the NNX API asks before it walks over them."""

from __future__ import annotations

from typing import Any

from weft._core.path import Path, key_of_entry
from weft._object.kinds import Kind, kind_of

_GRAPH_NODES = (Kind.OBJECT, Kind.VARIABLE)
_PYTREE_NODES = (Kind.NODE, Kind.VALUE, Kind.FOREIGN)


def is_graph_node(x: Any) -> bool:
    """Returns whether a value has an identity that survives transforms: an object or a Variable.

    Example:
      >>> import weft as nnx
      >>> nnx.graphlib.is_graph_node(nnx.Param(1.0)), nnx.graphlib.is_graph_node((1.0,))
      (True, False)
    """
    return kind_of(x) in _GRAPH_NODES


def is_pytree_node(x: Any) -> bool:
    """Returns whether a value is a container: a list, a tuple, a State, another JAX pytree.

    Example:
      >>> import weft as nnx
      >>> nnx.graphlib.is_pytree_node([1.0]), nnx.graphlib.is_pytree_node(nnx.Param(1.0))
      (True, False)
    """
    return x is None or kind_of(x) in _PYTREE_NODES


def is_node(x: Any) -> bool:
    """Returns whether other values are inside a value: an object or a container.

    Example:
      >>> import weft as nnx
      >>> nnx.graphlib.is_node(nnx.Rngs(0)), nnx.graphlib.is_node(nnx.Param(1.0))
      (True, False)
    """
    return kind_of(x) is Kind.OBJECT or is_pytree_node(x)


def is_node_leaf(x: Any) -> bool:
    """Returns whether a value is a leaf of objects: a Variable or an array.

    Example:
      >>> import weft as nnx
      >>> nnx.graphlib.is_node_leaf(nnx.Param(1.0)), nnx.graphlib.is_node_leaf(1.0)
      (True, False)
    """
    return kind_of(x) in (Kind.VARIABLE, Kind.ARRAY)


def jax_to_nnx_path(jax_path: Any, /) -> Path:
    """Turns a key path of JAX into a path of plain keys.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> [(path, _)] = jax.tree.leaves_with_path({"a": [1]})
      >>> nnx.graphlib.jax_to_nnx_path(path)
      ('a', 0)
    """
    return tuple(map(key_of_entry, jax_path))
