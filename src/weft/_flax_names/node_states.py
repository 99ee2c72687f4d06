"""Objects in pytrees, taken apart for JAX and put together again.

*NodeStates* carry one object, taken apart, through a transformation of JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.tree_util as jtu

from weft._core.path import Path, key_of_entry
from weft._core.static import Static
from weft._core.types import MISSING
from weft._flax_names.contexts import MergeContext, SplitContext, merge_context, split_context
from weft._graph.prefix import PrefixMapping
from weft._graph.records import GraphDef
from weft._graph.walk import Flattener
from weft._object.pytree import Pytree
from weft._variable.variable import Variable


@jtu.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class NodeStates:
    """An object taken apart, as a pytree: the States are children, the rest is static.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> node = nnx.NodeStates.from_split(*nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
      >>> node = jax.tree.map(lambda x: 2 * x, node)
      >>> nnx.merge(node.graphdef, node.state).out_features
      3
    """

    _graphdef: GraphDef | None
    states: tuple[Any, ...]
    metadata: Any = None

    @property
    def graphdef(self) -> GraphDef:
        """The structure.

        Raises:
          ValueError: if there is none.
        """
        if self._graphdef is None:
            raise ValueError(
                "these NodeStates have no GraphDef: make them with "
                "`nnx.NodeStates.from_split(*nnx.split(node))`"
            )
        return self._graphdef

    @property
    def state(self) -> Any:
        """The only State.

        Raises:
          ValueError: if there are several.
        """
        if len(self.states) != 1:
            raise ValueError(
                f"these NodeStates hold {len(self.states)} States, not one: use `.states`"
            )
        return self.states[0]

    @classmethod
    def from_split(
        cls, graphdef: GraphDef, state: Any, /, *states: Any, metadata: Any = None
    ) -> NodeStates:
        """Makes one of what `split` returned."""
        return cls(graphdef, (state, *states), metadata)

    @classmethod
    def from_states(cls, state: Any, *states: Any) -> NodeStates:
        """Makes one of States alone."""
        return cls(None, (state, *states))

    @classmethod
    def from_prefixes(cls, prefixes: Any, /, *, metadata: Any = None) -> NodeStates:
        """Makes one that holds a prefix for each State, for `in_axes` and the like."""
        return cls(None, tuple(prefixes), metadata)

    def replace(self, **updates: Any) -> NodeStates:
        """Returns a copy with other values for the named fields."""
        return dataclasses.replace(self, **updates)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Static]:
        """Returns children and static data, for JAX.

        The structure, which has no leaves, is a child, so that one without it is a prefix.
        """
        return (self._graphdef, *self.states), Static(self.metadata)

    @classmethod
    def tree_unflatten(cls, metadata: Static, children: Any) -> NodeStates:
        """Puts children and static data together, for JAX."""
        graphdef, *states = children
        return cls(graphdef, tuple(states), metadata.value)


def is_tree_node(x: Any) -> bool:
    """Returns whether a value is the NodeStates of an object.

    Example:
      >>> import weft as nnx
      >>> nnx.extract.is_tree_node(nnx.to_tree(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
      True
    """
    return isinstance(x, NodeStates)


def _is_graph_node(x: Any) -> bool:
    return isinstance(x, (Pytree, Variable))


def default_split_fn(ctx: SplitContext, path: Path, prefix: Any, leaf: Any) -> NodeStates:
    """Splits one object of a tree; the metadata is its prefix.

    Args:
      ctx: splits.
      path: where the object is in the tree.
      prefix: what `to_tree` was told about it.
      leaf: the object.

    Example:
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> with nnx.split_context() as ctx:
      ...     node = nnx.extract.default_split_fn(ctx, (), 0, layer)
      >>> node.metadata
      0
    """
    return NodeStates.from_split(*ctx.split(leaf), metadata=prefix)


def merge_tree_node(ctx: MergeContext, path: Path, prefix: Any, leaf: NodeStates) -> Any:
    """Merges one object of a tree.

    Args:
      ctx: merges.
      path: where the object is in the tree.
      prefix: what `from_tree` was told about it.
      leaf: the object, taken apart.

    Example:
      >>> import weft as nnx
      >>> node = nnx.to_tree(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> with nnx.merge_context() as ctx:
      ...     layer = nnx.extract.merge_tree_node(ctx, (), None, node)
      >>> layer.out_features
      3
    """
    return ctx.merge(leaf.graphdef, *leaf.states)


def to_tree(
    tree: Any,
    /,
    *,
    prefix: Any = MISSING,
    split_fn: Callable[[SplitContext, Path, Any, Any], Any] = default_split_fn,
    map_non_graph_nodes: bool = False,
    ctxtag: Hashable | None = None,
    check_aliasing: bool = True,
) -> Any:
    """Replaces the objects in a pytree by NodeStates, with which any JAX transformation works.

    Args:
      tree: a pytree of objects and other leaves.
      prefix: a prefix of the tree, such as axes; the part for a leaf is handed to `split_fn`.
      split_fn: `(ctx, path, prefix, leaf) -> NodeStates`.
      map_non_graph_nodes: whether `split_fn` is called for other leaves, too.
      ctxtag: the tag of an update context; see `nnx.update_context`.
      check_aliasing: whether one Variable under two prefixes is an error.

    Raises:
      AliasError: naming both paths and prefixes.

    Example:
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
      >>> first, again = nnx.from_tree(nnx.to_tree([layer, layer]))
      >>> first is again
      True
    """
    if check_aliasing and prefix is not MISSING:
        Flattener(arguments=True).flatten(tree, (), prefix)
    with split_context(ctxtag) as ctx:

        def convert(path: Path, prefix: Any, leaf: Any) -> Any:
            if map_non_graph_nodes or _is_graph_node(leaf):
                return split_fn(ctx, path, prefix, leaf)
            return leaf

        return _map(convert, tree, prefix, _is_graph_node)


def from_tree(
    tree: Any,
    /,
    *,
    prefix: Any = MISSING,
    merge_fn: Callable[[MergeContext, Path, Any, Any], Any] = merge_tree_node,
    is_node_leaf: Callable[[Any], bool] = is_tree_node,
    is_leaf: Callable[[Any], bool] = is_tree_node,
    map_non_graph_nodes: bool = False,
    is_inner: bool | None = None,
    ctxtag: Hashable | None = None,
) -> Any:
    """Replaces NodeStates in a pytree by objects; the inverse of `to_tree`.

    Args:
      tree: what `to_tree` returned, or what a transformation made of it.
      prefix: a prefix of the tree; the part for a leaf is handed to `merge_fn`.
      merge_fn: `(ctx, path, prefix, leaf) -> object`.
      is_node_leaf: which leaves stand for objects.
      is_leaf: which values are leaves.
      map_non_graph_nodes: whether `merge_fn` is called for other leaves, too.
      is_inner: with a tag, whether objects are made for a function that is to change them; see
        `nnx.merge_context`.
      ctxtag: the tag of an update context; see `nnx.update_context`.

    Example:
      >>> import weft as nnx
      >>> tree = nnx.to_tree({"layer": nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "n": 1})
      >>> nnx.from_tree(tree)["layer"].out_features
      3
    """
    with merge_context(ctxtag, is_inner) as ctx:

        def convert(path: Path, prefix: Any, leaf: Any) -> Any:
            if map_non_graph_nodes or is_node_leaf(leaf):
                return merge_fn(ctx, path, prefix, leaf)
            return leaf

        return _map(convert, tree, prefix, is_leaf)


def clear_non_graph_nodes(tree: Any) -> Any:
    """Replaces everything but objects in a pytree by None.

    Example:
      >>> import weft as nnx
      >>> nnx.extract.clear_non_graph_nodes({"n": 1, "w": nnx.Param(2)})
      {'n': None, 'w': Param(2)}
    """
    return jax.tree.map(lambda x: x if _is_graph_node(x) else None, tree, is_leaf=_is_graph_node)


def _map(
    f: Callable[[Path, Any, Any], Any], tree: Any, prefix: Any, is_leaf: Callable[[Any], bool]
) -> Any:
    """Maps `f(path, prefix, leaf)` over a tree and a prefix of it, in the order of the leaves."""
    pairs, treedef = jtu.tree_flatten_with_path(tree, is_leaf=is_leaf)
    prefixes: list[Any] = [None] * len(pairs)
    if prefix is not MISSING:
        prefixes = []
        jax.tree.map(
            lambda p, part: prefixes.extend([p] * len(jax.tree.leaves(part, is_leaf=is_leaf))),
            prefix,
            tree,
            is_leaf=lambda p: p is None or isinstance(p, PrefixMapping),
        )
    return jtu.tree_unflatten(
        treedef,
        [
            f(tuple(map(key_of_entry, path)), p, leaf)
            for (path, leaf), p in zip(pairs, prefixes, strict=True)
        ],
    )
