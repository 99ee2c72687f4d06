"""Sharding plans of whole models: specs and shardings of all values, real or abstract.

A *tree* here is a model, a State or any pytree of Variables and arrays. Each function answers with
the same tree, with something else in the place of each value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.tree_util as jtu
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from weft._lift.map import PARTITION_NAME as PARTITION_NAME
from weft._metadata import with_metadata
from weft._path import format_path, key_of_entry
from weft._sharding import Plan, axes_of, check_fit, misfits, resolve, rules_of
from weft._types import ARRAY_TYPES
from weft._variable import Variable

A = TypeVar("A")


def with_partitioning(
    initializer: Callable[..., Any], sharding: Plan, mesh: Any = None, **metadata: Any
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


def _is_variable(x: Any) -> bool:
    return isinstance(x, Variable)


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

    Without a plan in the metadata `out_sharding` it is that of the value, which may be sharded.

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
    plan = x.get_metadata("out_sharding", None)
    if plan is not None:
        return resolve(plan, rules_of(x))
    return _spec_of_value(x.get_raw_value(), mesh)


def _put(x: Any, new: Any) -> Any:
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
        lambda x: _put(x, _spec(x)) if isinstance(x, (Variable, *ARRAY_TYPES)) else None,
        tree,
        is_leaf=_is_variable,
    )


def get_named_sharding(tree: A, mesh: Any) -> A:
    """Puts a `NamedSharding` in the place of every value, and checks that they all fit.

    Args:
      tree: a model, a State or a pytree of Variables and arrays, concrete or abstract.
      mesh: the mesh.

    Returns:
      The same tree; of what is neither Variable nor array, None.

    Raises:
      ValueError: naming the path and the reason of every plan that does not fit its value or the
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
    leaves, treedef, shardings = _shardings(tree, mesh)
    placed = [
        None if sharding is None else _put(x, sharding)
        for x, sharding in zip(leaves, shardings, strict=True)
    ]
    return jtu.tree_unflatten(treedef, placed)


def _shardings(tree: Any, mesh: Any) -> tuple[list[Any], Any, list[NamedSharding | None]]:
    """Returns the Variables and other leaves of a tree, its treedef, and their shardings."""
    pairs, treedef = jtu.tree_flatten_with_path(tree, is_leaf=_is_variable)
    leaves = [x for _, x in pairs]
    specs = [_spec(x, mesh) if isinstance(x, (Variable, *ARRAY_TYPES)) else None for x in leaves]
    check_fit(
        (_where(path, x), _plan(x, spec), misfits(spec, value.shape, mesh))
        for (path, x), spec in zip(pairs, specs, strict=True)
        if spec is not None
        for value in jax.tree.leaves(x.get_raw_value() if isinstance(x, Variable) else x)
        if isinstance(value, ARRAY_TYPES)
    )
    return leaves, treedef, [None if spec is None else NamedSharding(mesh, spec) for spec in specs]


def _where(path: Any, x: Any) -> str:
    return f"{format_path(tuple(map(key_of_entry, path)))} ({type(x).__name__})"


def _plan(x: Any, spec: PartitionSpec) -> Any:
    return x.get_metadata("out_sharding", spec) if isinstance(x, Variable) else spec


# -- abstract values
def as_abstract(tree: A, graph: bool | None = None) -> A:
    """Replaces every array by a `ShapeDtypeStruct` that knows its sharding.

    The sharding is that of the metadata on the mesh of `jax.set_mesh`, if there is one, else the
    one that the array has.

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
    from weft._graph import State, merge, split

    mesh = _mesh_around()
    if isinstance(tree, State):
        return _abstract(tree, mesh)
    graphdef, state = split(tree, graph=graph)
    return merge(graphdef, _abstract(state, mesh), copy=False)


abstract_with_sharding = as_abstract


def _mesh_around() -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    try:
        return mesh if mesh.empty else jax.sharding.get_mesh()
    except ValueError:  # inside a trace only the abstract one is known
        return mesh


def _abstract(tree: Any, mesh: Any) -> Any:
    if mesh.empty:
        leaves, treedef = jtu.tree_flatten(tree, is_leaf=_is_variable)
        shardings = [None] * len(leaves)
    else:
        leaves, treedef, shardings = _shardings(tree, mesh)
    made = []
    for x, sharding in zip(leaves, shardings, strict=True):
        value = x.get_raw_value() if isinstance(x, Variable) else x
        made.append(_put(x, jax.tree.map(functools.partial(_abstract_leaf, sharding), value)))
    return jtu.tree_unflatten(treedef, made)


def _abstract_leaf(sharding: Any, x: Any) -> Any:
    if not isinstance(x, ARRAY_TYPES):
        return x
    if sharding is None and not isinstance(x, Tracer):
        sharding = getattr(x, "sharding", None)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def get_abstract_model(
    init_fn: Callable[[], Any], mesh: Any, *, graph: bool | None = None
) -> tuple[Any, Any]:
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
    from weft._graph import split
    from weft._lift.abstract import eval_shape

    with jax.set_mesh(mesh):
        graphdef, state = split(eval_shape(init_fn, graph=graph), graph=graph)
    return graphdef, _abstract(state, mesh)


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
    variables = [x for x in jax.tree.leaves(tree, is_leaf=_is_variable) if _is_variable(x)]
    name = transform_metadata.get(PARTITION_NAME)
    for variable in variables:
        plan = variable.get_metadata("out_sharding", None)
        if plan and PARTITION_NAME not in transform_metadata:
            raise ValueError(
                f"a {type(variable).__name__} with out_sharding={plan!r} gets or loses an axis "
                "without a name: pass the mesh axis, or None for an axis that is not cut, "
                "`transform_metadata={nnx.PARTITION_NAME: None}`"
            )
    distinct = {id(variable): variable for variable in variables}
    return [(variable, name) for variable in distinct.values()]
