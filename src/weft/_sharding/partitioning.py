"""Shardings of whole models: specs and shardings of all values, real or abstract.

A *tree* here is a model, a State or any pytree of Variables and arrays. Each function answers with
the same tree, with something else in the place of each value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.tree_util as jtu
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from weft._core.path import format_path, key_of_entry
from weft._core.types import ARRAY_TYPES
from weft._lift.map import PARTITION_NAME as PARTITION_NAME
from weft._variable.metadata import with_metadata
from weft._variable.sharding import ShardingLike, axes_of, check_fit, misfits, resolve, rules_for
from weft._variable.variable import Variable, is_variable, raw_value

A = TypeVar("A")


def with_partitioning(
    initializer: Callable[..., Any], sharding: ShardingLike, mesh: Any = None, **metadata: Any
) -> Callable[..., Any]:
    """Wraps an initializer such that the Variable made from its result is sharded.

    Args:
      initializer: a function that returns an array.
      sharding: a mesh axis, logical name, tuple of them or None per dimension.
      mesh: the mesh to shard on; that of `jax.set_mesh` if missing.
      **metadata: further metadata and hooks, as for `with_metadata`.

    Example:
      >>> import weft as nnx
      >>> init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("data", None))
      >>> layer = nnx.Linear(2, 3, kernel_init=init, rngs=nnx.Rngs(0))
      >>> layer.kernel.out_sharding
      ('data', None)
    """
    if mesh is not None:
        metadata["mesh"] = mesh
    return with_metadata(initializer, out_sharding=sharding, **metadata)


def _spec_of_value(value: Any, mesh: Any = None) -> PartitionSpec:
    """Reads a spec off an array that is sharded already; an empty one if it is not."""
    if isinstance(value, Tracer):
        value = jax.typeof(value)
    spec = getattr(getattr(value, "sharding", None), "spec", None) or PartitionSpec()
    axes = {axis for entry in spec for axis in axes_of(entry)}
    known = mesh is None or axes <= set(mesh.axis_names)
    return spec if axes and known else PartitionSpec()


def get_var_pspec(v: Any) -> PartitionSpec:
    """Returns the `PartitionSpec` of one Variable, with mesh axes in place of logical names.

    Without the metadata `out_sharding` it is that of the value, which may be sharded.

    Args:
      v: a Variable.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> tuple(nnx.spmd.get_var_pspec(nnx.Param(jnp.ones((2, 2)), out_sharding=("data", None))))
      ('data', None)
    """
    return _spec(v)


def _spec(x: Any, mesh: Any = None) -> PartitionSpec:
    if not isinstance(x, Variable):
        return _spec_of_value(x, mesh)
    sharding = x.get_metadata("out_sharding", None)
    if sharding is not None:
        return resolve(sharding, rules_for(x.get_metadata()))
    return _spec_of_value(x.get_raw_value(), mesh)


def put(x: Any, new: Any) -> Any:
    return x.copy(new) if isinstance(x, Variable) else new


def get_partition_spec(tree: A) -> A:
    """Puts a `PartitionSpec` in the place of every value.

    Args:
      tree: a model, a State or a pytree of Variables and arrays.

    Returns:
      The same tree; of what is neither Variable nor array, None.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> specs = nnx.get_partition_spec({"a": nnx.Param(jnp.ones(4), out_sharding=("data",))})
      >>> tuple(specs["a"].value)
      ('data',)
    """
    return jax.tree.map(
        lambda x: put(x, _spec(x)) if isinstance(x, (Variable, *ARRAY_TYPES)) else None,
        tree,
        is_leaf=is_variable,
    )


def get_named_sharding(tree: A, mesh: Any) -> A:
    """Puts a `NamedSharding` in the place of every value, and checks that they all fit.

    Args:
      tree: a model, a State or a pytree of Variables and arrays, concrete or abstract.
      mesh: the mesh.

    Returns:
      The same tree; of what is neither Variable nor array, None.

    Raises:
      ValueError: naming the path and the reason of every one that does not fit its value or the
        mesh: rank, divisibility, an axis used twice, an unknown name.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> mesh = jax.make_mesh((1,), ("data",))
      >>> state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> state = jax.device_put(state, nnx.get_named_sharding(state, mesh))
      >>> state.kernel.sharding.mesh == mesh
      True
    """
    leaves, treedef, shardings = shardings_of(tree, mesh)
    placed = [
        None if sharding is None else put(x, sharding)
        for x, sharding in zip(leaves, shardings, strict=True)
    ]
    return jtu.tree_unflatten(treedef, placed)


def shardings_of(
    tree: Any, mesh: Any, *, own_meshes: bool = False
) -> tuple[list[Any], Any, list[NamedSharding | None]]:
    """Returns the Variables and other leaves of a tree, its treedef, and their shardings.

    Args:
      tree: the tree.
      mesh: the mesh; if it is empty there are no shardings.
      own_meshes: whether a mesh that a Variable names itself comes first.
    """
    pairs, treedef = jtu.tree_flatten_with_path(tree, is_leaf=is_variable)
    leaves = [x for _, x in pairs]
    meshes = [_own_mesh(x, mesh) if own_meshes else mesh for x in leaves]
    specs = [
        None if mesh.empty or not isinstance(x, (Variable, *ARRAY_TYPES)) else _spec(x, mesh)
        for x, mesh in zip(leaves, meshes, strict=True)
    ]
    check_fit(
        (_where(path, x), _plan(x, spec), misfits(spec, value.shape, mesh))
        for (path, x), spec, mesh in zip(pairs, specs, meshes, strict=True)
        if spec is not None
        for value in jax.tree.leaves(raw_value(x))
        if isinstance(value, ARRAY_TYPES)
    )
    shardings = [
        None if spec is None else NamedSharding(mesh, spec)
        for spec, mesh in zip(specs, meshes, strict=True)
    ]
    return leaves, treedef, shardings


def _own_mesh(x: Any, mesh: Any) -> Any:
    """Returns the mesh that a Variable names, in its metadata or its sharding, or a given one."""
    if not isinstance(x, Variable) or x.get_metadata("out_sharding", None) is None:
        return mesh
    sharding = x.get_metadata("out_sharding")
    return (
        sharding.mesh
        if isinstance(sharding, NamedSharding)
        else x.get_metadata("mesh", None) or mesh
    )


def _where(path: Any, x: Any) -> str:
    return f"{format_path(tuple(map(key_of_entry, path)))} ({type(x).__name__})"


def _plan(x: Any, spec: PartitionSpec) -> Any:
    return x.get_metadata("out_sharding", spec) if isinstance(x, Variable) else spec


# -- axes that transforms add
def add_axis(tree: A, index: int, transform_metadata: Mapping[str, Any]) -> A:
    """Tells every Variable of a tree that its value got a new axis.

    Args:
      tree: a pytree of Variables and objects; its Variables' metadata changes in place.
      index: where the axis was put.
      transform_metadata: has the mesh axis it is cut along under `PARTITION_NAME`.

    Returns:
      The tree.

    Raises:
      ValueError: if a Variable is sharded and the new axis has no name; None is a name, too.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> weight = nnx.Param(jnp.ones((3, 2)), out_sharding=("data",))
      >>> _ = nnx.spmd.add_axis(weight, 0, {nnx.PARTITION_NAME: "layers"})
      >>> weight.out_sharding
      ('layers', 'data')
    """
    for variable, name in _renamed(tree, transform_metadata):
        variable.add_axis(index, name)
    return tree


def remove_axis(tree: A, index: int, transform_metadata: Mapping[str, Any]) -> A:
    """Tells every Variable of a tree that its value lost an axis; the inverse of `add_axis`.

    Raises:
      ValueError: as `add_axis`, and if the axis at that place has another name.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> weight = nnx.Param(jnp.ones(2), out_sharding=("layers", "data"))
      >>> _ = nnx.spmd.remove_axis(weight, 0, {nnx.PARTITION_NAME: "layers"})
      >>> weight.out_sharding
      ('data',)
    """
    for variable, name in _renamed(tree, transform_metadata):
        variable.remove_axis(index, name)
    return tree


def _renamed(tree: Any, transform_metadata: Mapping[str, Any]) -> list[tuple[Variable, Any]]:
    variables = [x for x in jax.tree.leaves(tree, is_leaf=is_variable) if is_variable(x)]
    name = transform_metadata.get(PARTITION_NAME)
    for variable in variables:
        sharding = variable.get_metadata("out_sharding", None)
        if sharding and PARTITION_NAME not in transform_metadata:
            raise ValueError(
                f"a {type(variable).__name__} with out_sharding={sharding!r} gets or loses an axis "
                "without a name: pass the mesh axis, or None for an axis that is not cut, "
                "`transform_metadata={nnx.PARTITION_NAME: None}`"
            )
    distinct = {id(variable): variable for variable in variables}
    return [(variable, name) for variable in distinct.values()]
