"""Where arrays live on a mesh of devices.

A *mesh* names the axes of a grid of devices. A *sharding* (the `out_sharding` metadata of a
Variable) names, for each dimension of the value, the mesh axis it is cut along, or None; a name may
also be *logical*, which *rules* turn into a mesh axis. A *spec* has mesh axes only: JAX's
`PartitionSpec`. A sharding may also be a `NamedSharding`: a spec with its mesh. *Manual* axes are
those over which a surrounding `shard_map` has cut the arrays already; constraints leave them out.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from weft._core import config
from weft._core.types import ARRAY_TYPES
from weft._variable.guard import name_of

Names = str | tuple[str, ...] | None
ShardingLike = Sequence[Names] | PartitionSpec | NamedSharding | None
Rules = Sequence[tuple[str, Names]]

_NO_RULES: Mapping[str, Names] = MappingProxyType({})
_rules: contextvars.ContextVar[Mapping[str, Names]] = contextvars.ContextVar(
    "logical axis rules", default=_NO_RULES
)
_traced_rules = jax.make_user_context(())
"""Lets JAX trace again where other rules are in force."""


@contextlib.contextmanager
def logical_axis_rules(rules: Rules) -> Iterator[None]:
    """Sets which mesh axes logical names stand for, within a `with` block.

    Inner blocks replace the rules of outer ones. A Variable may carry rules of its own as the
    metadata `sharding_rules`, which come first.

    Args:
      rules: pairs of a logical name and a mesh axis, a tuple of mesh axes, or None.

    Raises:
      ValueError: if two rules turn one name into different axes.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> with nnx.logical_axis_rules([("embed", "model"), ("vocab", None)]):
      ...     weight = nnx.Param(jnp.zeros((4, 2)), out_sharding=("vocab", "embed"))
      ...     tuple(nnx.spmd.get_var_pspec(weight))
      (None, 'model')
    """
    mapping = _as_mapping(rules)
    token = _rules.set(mapping)
    try:
        with _traced_rules(tuple(sorted(mapping.items()))):
            yield
    finally:
        _rules.reset(token)


def _as_mapping(rules: Rules | Mapping[str, Names]) -> dict[str, Names]:
    mapping: dict[str, Names] = {}
    for name, axes in rules.items() if isinstance(rules, Mapping) else rules:
        axes = tuple(axes) if isinstance(axes, list) else axes
        if mapping.setdefault(name, axes) != axes:
            raise ValueError(
                f"two logical axis rules for {name!r}: {mapping[name]!r} and {axes!r}. Keep one, "
                "and give the other dimension a logical name of its own"
            )
    return mapping


def rules_for(metadata: Mapping[str, Any]) -> dict[str, Names]:
    """Returns the rules in force for a Variable: its own before those of the `with` block."""
    return {**_rules.get(), **_as_mapping(metadata.get("sharding_rules") or ())}


def resolve(sharding: Any, rules: Mapping[str, Names]) -> PartitionSpec:
    """Turns a sharding into a spec: logical names become mesh axes, other names stay.

    Raises:
      TypeError: if the sharding is no tuple of names.
    """
    if sharding is None:
        return PartitionSpec()
    if isinstance(sharding, NamedSharding):
        sharding = sharding.spec
    if not isinstance(sharding, (tuple, list, PartitionSpec)):
        raise TypeError(
            f"out_sharding={sharding!r} of type {type(sharding).__name__} names no mesh axis per "
            "dimension: give a tuple such as `out_sharding=('data', None)`"
        )
    entries = [_resolve_entry(entry, rules) for entry in sharding]
    if isinstance(sharding, PartitionSpec) and entries == list(sharding):
        return sharding  # it may say more than its entries do
    return PartitionSpec(*entries)


def _resolve_entry(entry: Any, rules: Mapping[str, Names]) -> Any:
    if isinstance(entry, (tuple, list)):
        found = [axis for name in entry for axis in axes_of(_resolve_entry(name, rules))]
        return tuple(found)
    return rules.get(entry, entry) if isinstance(entry, str) else entry


def axes_of(entry: Any) -> tuple[str, ...]:
    """Returns the mesh axes of one entry of a spec."""
    if isinstance(entry, str):
        return (entry,)
    return tuple(entry) if isinstance(entry, (tuple, list)) else ()


def misfits(spec: PartitionSpec, shape: Sequence[int], mesh: Any) -> list[str]:
    """Lists in words why an array of some shape cannot be cut by a spec on a mesh."""
    sizes = dict(mesh.shape)
    found = []
    if len(spec) > len(shape):
        shown = f"the value of shape {tuple(shape)} has {len(shape)}"
        found.append(f"it names {len(spec)} dimensions, {shown}")
    user: dict[str, int] = {}
    for dimension, entry in enumerate(spec):
        parts = 1
        for axis in axes_of(entry):
            if axis not in sizes:
                found.append(
                    f"{axis!r} is no axis of the mesh {sizes}, and no logical axis rule names it"
                )
            elif axis in user:
                found.append(
                    f"mesh axis {axis!r} is used twice, for dimensions {user[axis]} and {dimension}"
                )
            user[axis] = dimension
            parts *= sizes.get(axis, 1)
        if dimension < len(shape) and shape[dimension] % parts:
            found.append(
                f"dimension {dimension} of size {shape[dimension]} cannot be cut into {parts} "
                f"equal parts by {entry!r}"
            )
    return found


def check_fit(faults: Iterable[tuple[str, Any, list[str]]]) -> None:
    """Raises one error for all shardings that do not fit.

    Args:
      faults: where, the sharding, and what `misfits` found, for each of them.

    Raises:
      ValueError: if there are any.
    """
    lines = [
        f"  {where}, out_sharding={sharding!r}: {'; '.join(reasons)}"
        for where, sharding, reasons in faults
        if reasons
    ]
    if lines:
        raise ValueError(
            "the sharding does not fit:\n" + "\n".join(lines) + "\nGive one mesh axis or None per "
            "dimension, each axis once, e.g. `out_sharding=('data', None)`; say what logical names "
            "stand for with `nnx.logical_axis_rules([('name', 'axis')])`"
        )


# -- constraints
def _mesh_in_force(own: Any = None) -> Any:
    """Returns the mesh to use: that of `jax.set_mesh` if it has the same axes, else one's own."""
    around = jax.sharding.get_abstract_mesh()
    if own is None:
        return around
    same = not around.empty and tuple(around.axis_names) == tuple(own.axis_names)
    return around if same else own  # only the surrounding one knows which axes are manual


def _keep(spec: PartitionSpec, mesh: Any, *kinds: AxisType) -> PartitionSpec:
    """Leaves only the mesh axes of some kinds in a spec."""
    kind_of = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    dropped = {axis for entry in spec for axis in axes_of(entry) if kind_of[axis] not in kinds}
    if not dropped:
        return spec
    entries = []
    for entry in spec:
        kept = tuple(axis for axis in axes_of(entry) if axis not in dropped)
        entries.append(kept if len(kept) > 1 else kept[0] if kept else None)
    return PartitionSpec(*entries)


def _place(x: Any, spec: PartitionSpec, mesh: Any, own: Any, memory: str | None) -> Any:
    """Shards one array; inside a trace this is a constraint."""

    def on_mesh(spec: PartitionSpec, memory: str | None = None) -> Any:
        bare = mesh is not own and memory is None
        return spec if bare else NamedSharding(own, spec, memory_kind=memory)

    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
    if not isinstance(x, Tracer):
        whole = [None if entry is PartitionSpec.UNCONSTRAINED else entry for entry in spec]
        x = jax.device_put(x, on_mesh(PartitionSpec(*whole), memory))
        if not isinstance(x, Tracer):  # it is one for a constant inside jit
            return x
    if AxisType.Explicit in mesh.axis_types:
        x = jax.sharding.reshard(x, on_mesh(_keep(spec, mesh, AxisType.Explicit)))
    if AxisType.Auto in mesh.axis_types:
        x = jax.lax.with_sharding_constraint(x, on_mesh(_keep(spec, mesh, AxisType.Auto)))
    return x


def _constrain(
    where: str, value: Any, sharding: ShardingLike, rules: Mapping[str, Names], own: Any
) -> Any:
    spec = resolve(sharding, rules)
    memory = None
    if isinstance(sharding, NamedSharding):
        if own is not None and own != sharding.mesh:
            raise ValueError(
                f"{where} names two meshes: {sharding.mesh} in its out_sharding, and {own}. Leave "
                "out `mesh=`, or give the spec alone: `out_sharding=sharding.spec`"
            )
        own, memory = sharding.mesh, sharding.memory_kind
    mesh = _mesh_in_force(own)
    if mesh.empty:
        return value
    unknown = {axis for entry in spec for axis in axes_of(entry)} - set(mesh.axis_names)
    free = spec if unknown else _keep(spec, mesh, AxisType.Auto, AxisType.Explicit)
    leaves = jax.tree.leaves(value)
    check_fit((where, sharding, misfits(free, np.shape(x), mesh)) for x in leaves if _is_number(x))
    return jax.tree.map(
        lambda x: _place(x, free, mesh, own, memory) if isinstance(x, ARRAY_TYPES) else x, value
    )


def _is_number(x: Any) -> bool:
    return isinstance(x, (*ARRAY_TYPES, bool, int, float, complex))


def shard_on_creation(variable: Any, value: Any) -> Any:
    """Shards the value of a new Variable by its `out_sharding`, where a mesh is set.

    The mesh is that of `jax.set_mesh`, or the Variable's metadata `mesh`. Outside a mesh, and with
    eager sharding off, the value stays as it is.

    Args:
      variable: the Variable.
      value: an array or pytree of arrays.

    Returns:
      The value, sharded; inside a trace, constrained.

    Raises:
      ValueError: if the sharding does not fit the value or the mesh.
    """
    metadata = variable._metadata
    sharding = metadata.get("out_sharding")
    eager = metadata.get("eager_sharding")
    if sharding is None or not (config.using_eager_sharding() if eager is None else eager):
        return value
    where = name_of(variable)
    return _constrain(where, value, sharding, rules_for(metadata), metadata.get("mesh"))


def with_logical_constraint(x: Any, names: ShardingLike, *, mesh: Any = None) -> Any:
    """Shards an array, or constrains it inside a transform, by mesh axes or logical names.

    Axes over which a surrounding `shard_map` has cut the array already are left out. Without a
    mesh the array stays as it is.

    Args:
      x: an array or pytree of arrays.
      names: a mesh axis, logical name, tuple of them or None per dimension.
      mesh: the mesh; that of `jax.set_mesh` if missing.

    Raises:
      ValueError: if the names do not fit the array or the mesh.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> with jax.set_mesh(jax.make_mesh((1,), ("data",))):
      ...     with nnx.logical_axis_rules([("batch", "data")]):
      ...         x = nnx.spmd.with_logical_constraint(jnp.zeros((4, 2)), ("batch", None))
      >>> tuple(x.sharding.spec)
      ('data', None)
    """
    return _constrain("the array", x, names, rules_for({}), mesh)
