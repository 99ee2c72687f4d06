"""Models without memory: shapes, dtypes and shardings in the place of arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.tree_util as jtu
from jax.core import Tracer

from weft._core.types import ARRAY_TYPES
from weft._graph import GraphDef, State, merge, split
from weft._lift.abstract import eval_shape
from weft._sharding.partitioning import put, shardings_of
from weft._variable.variable import raw_value

A = TypeVar("A")


def as_abstract(tree: A, graph: bool | None = None) -> A:
    """Replaces every array by a `ShapeDtypeStruct` that knows its sharding.

    The sharding is that of the metadata on the Variable's own mesh or that of `jax.set_mesh`, if
    there is one, else the one that the array has.

    Args:
      tree: a model, a State or a pytree of Variables and arrays, concrete or abstract.
      graph: False to refuse shared references; None for the setting.

    Returns:
      A new tree; the original is unchanged.

    Raises:
      ValueError: as `get_named_sharding`.

    Example:
      >>> import weft as nnx
      >>> abstract = nnx.as_abstract(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> type(abstract.kernel.value).__name__
      'ShapeDtypeStruct'
    """
    mesh = _mesh_around()
    if isinstance(tree, State):
        return _abstract(tree, mesh, own_meshes=True)
    graphdef, state = split(tree, graph=graph)
    return merge(graphdef, _abstract(state, mesh, own_meshes=True), copy=False)


abstract_with_sharding = as_abstract


def _mesh_around() -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    try:
        return mesh if mesh.empty else jax.sharding.get_mesh()
    except ValueError:  # inside a trace only the abstract one is known
        return mesh


def _abstract(tree: Any, mesh: Any, *, own_meshes: bool = False) -> Any:
    leaves, treedef, shardings = shardings_of(tree, mesh, own_meshes=own_meshes)
    made = []
    for x, sharding in zip(leaves, shardings, strict=True):
        value = raw_value(x)
        made.append(put(x, jax.tree.map(functools.partial(_abstract_leaf, sharding), value)))
    return jtu.tree_unflatten(treedef, made)


def _abstract_leaf(sharding: Any, x: Any) -> Any:
    if not isinstance(x, ARRAY_TYPES):
        return x
    if sharding is None and not isinstance(x, Tracer):
        sharding = getattr(x, "sharding", None)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def get_abstract_model(
    init_fn: Callable[[], A], mesh: Any, *, graph: bool | None = None
) -> tuple[GraphDef[A], State]:
    """Makes a model without memory, and says where each of its values belongs on a mesh.

    Args:
      init_fn: returns the model.
      mesh: the mesh.
      graph: False to refuse shared references; None for the setting.

    Returns:
      `(graphdef, state)`, the state's values `ShapeDtypeStruct`s with shardings: what to restore
      a checkpoint into.

    Raises:
      ValueError: as `get_named_sharding`.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> mesh = jax.make_mesh((1,), ("data",))
      >>> init = lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> graphdef, state = nnx.get_abstract_model(init, mesh)
      >>> state.kernel.sharding.mesh == mesh
      True
    """
    with jax.set_mesh(mesh):
        graphdef, state = split(eval_shape(init_fn, graph=graph), graph=graph)
    return graphdef, _abstract(state, mesh)
