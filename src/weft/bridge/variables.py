"""Variables of Weft as Linen variables, and back.

In Linen a value with metadata is in a *box* (`flax.core.meta.AxisMetadata`), which knows how its
axes are sharded. Values without metadata are plain arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.tree_util as jtu
from flax.core import meta
from jax.sharding import PartitionSpec

from weft._core.path import Path
from weft._core.static import Static
from weft._graph.state import from_flat_state, to_flat_state
from weft._sharding.partitioning import PARTITION_NAME, get_var_pspec
from weft._variable.metadata import with_metadata
from weft._variable.names import variable_name_from_type, variable_type_from_name
from weft._variable.sharding import with_logical_constraint
from weft._variable.variable import A, Variable

_BOX_TYPE = "linen_meta_type"
ARRAYS = "arrays"
"""Collection of arrays that no Variable holds."""


@jtu.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class NNXMeta(meta.AxisMetadata[A]):
    """A Linen box that keeps type and metadata of a Variable.

    Attributes:
      var_type: the Variable type.
      value: the value.
      metadata: the metadata.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> box = nnx.bridge.variables.to_linen_var(nnx.Param(jnp.ones(2), group="decay"))
      >>> box.to_nnx_variable().group
      'decay'
    """

    var_type: type[Variable]
    value: Any
    metadata: Mapping[str, Any]

    def unbox(self) -> Any:
        """Returns the value, constrained to its sharding."""
        sharding = self.metadata.get("out_sharding")
        if sharding is None:
            return self.value
        return with_logical_constraint(self.value, sharding, mesh=self.metadata.get("mesh"))

    def replace_boxed(self, val: Any) -> NNXMeta:
        """Returns the same box around another value."""
        return self.replace(value=val)

    def replace(self, **updates: Any) -> NNXMeta:
        """Returns a copy with other values for the named fields."""
        return dataclasses.replace(self, **updates)

    def add_axis(self, index: int, params: Mapping[Any, Any]) -> NNXMeta:
        """Returns the box of a value that got an axis."""
        variable = self.to_nnx_variable()
        variable.add_axis(index, params.get(PARTITION_NAME))
        return self.replace(metadata=variable.get_metadata())

    def remove_axis(self, index: int, params: Mapping[Any, Any]) -> NNXMeta:
        """Returns the box of a value that lost an axis."""
        variable = self.to_nnx_variable()
        variable.remove_axis(index, params.get(PARTITION_NAME))
        return self.replace(metadata=variable.get_metadata())

    def get_partition_spec(self) -> PartitionSpec:
        """Returns how the value is sharded."""
        return get_var_pspec(self.to_nnx_variable())

    def to_nnx_variable(self) -> Variable:
        """Returns the Variable that was boxed."""
        return self.var_type.from_metadata(self.value, self.metadata)

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """Returns children with keys and static data, for JAX."""
        return ((jtu.GetAttrKey("value"), self.value),), (self.var_type, Static(self.metadata))

    @classmethod
    def tree_unflatten(cls, static: tuple[type[Variable], Static], children: Any) -> NNXMeta:
        """Puts children and static data together, for JAX."""
        return cls(static[0], children[0], static[1].value)


def is_box(x: Any) -> bool:
    """Returns whether a value is a Linen box."""
    return isinstance(x, meta.AxisMetadata)


def to_linen_var(vs: Variable) -> Any:
    """Turns a Variable into a Linen variable: a plain value, or a box if there is metadata.

    Example:
      >>> import weft as nnx
      >>> nnx.bridge.variables.to_linen_var(nnx.Param(1.0))
      1.0
    """
    metadata = vs.get_metadata()
    value = vs.get_raw_value()
    box_type = metadata.pop(_BOX_TYPE, None)
    if box_type is not None:
        fields = {f.name for f in dataclasses.fields(box_type)}
        names = {"names": "out_sharding", "rules": "sharding_rules"}
        given = {name: metadata.get(names.get(name, name)) for name in fields - {"value"}}
        return box_type(value, **given)
    return NNXMeta(type(vs), value, metadata) if metadata else value


def to_nnx_var(col: str, x: Any) -> Variable:
    """Turns a Linen variable into a Variable.

    Args:
      col: the collection, which names the Variable type; an unknown one gets a new type.
      x: a plain value or a box.

    Example:
      >>> import weft as nnx
      >>> type(nnx.bridge.variables.to_nnx_var("batch_stats", 1.0)).__name__
      'BatchStat'
    """
    kind = variable_type_from_name(col, allow_register=True)
    if isinstance(x, NNXMeta):
        return x.to_nnx_variable()
    if not is_box(x):
        return kind.from_metadata(x, {})
    fields = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
    names = {"names": "out_sharding", "rules": "sharding_rules"}
    metadata = {names.get(k, k): v for k, v in fields.items() if k != "value" and v is not None}
    return kind.from_metadata(x.value, {**metadata, _BOX_TYPE: type(x)})  # type: ignore[attr-defined]


def linen_vars_to_nnx_attrs(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Turns Linen variables into a nested dict of Variables, collections merged.

    Args:
      variables: nested mappings by collection.

    Example:
      >>> import weft as nnx
      >>> nnx.bridge.variables.linen_vars_to_nnx_attrs({"params": {"dense": {"bias": 0.0}}})
      {'dense': {'bias': Param(0.0)}}
    """
    return from_flat_state(iter_linen_vars(variables), cls=dict)


def iter_linen_vars(variables: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    """Lists Linen variables as Variables with their paths, arrays of no Variable as they are."""
    return [
        (path, leaf if collection == ARRAYS else to_nnx_var(collection, leaf))
        for collection, tree in variables.items()
        for path, leaf in _iter_leaves(tree, ())
    ]


def _iter_leaves(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, child in tree.items():
        yield from _iter_leaves(child, (*path, key))


def nnx_attrs_to_linen_vars(
    nnx_attrs: Any, metadata_fn: Callable[[Variable], Any] = to_linen_var
) -> dict[str, Any]:
    """Turns a nested dict or State of Variables into Linen variables by collection.

    Args:
      nnx_attrs: the Variables; a type without a collection name gets that of its class.
      metadata_fn: turns a Variable into a Linen variable.

    Example:
      >>> import weft as nnx
      >>> nnx.bridge.variables.nnx_attrs_to_linen_vars({"dense": {"bias": nnx.Param(0.0)}})
      {'params': {'dense': {'bias': 0.0}}}
    """
    flat: dict[Path, Any] = {}
    for path, leaf in to_flat_state(nnx_attrs):
        if isinstance(leaf, Variable):
            collection = variable_name_from_type(type(leaf), allow_register=True)
            flat[(collection, *path)] = metadata_fn(leaf)
        elif isinstance(leaf, jax.Array):
            flat[(ARRAYS, *path)] = leaf
    return from_flat_state(flat, cls=dict)


def with_partitioning(fn: Callable[..., Any], names: Any, mesh: Any = None) -> Callable[..., Any]:
    """As `nnx.with_partitioning`; in Linen the value gets a `flax.core.meta.Partitioned` box.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> init = nnx.bridge.with_partitioning(nnx.initializers.zeros_init(), ("data",))
      >>> nnx.bridge.variables.to_linen_var(nnx.Param(init(jax.random.key(0), (2,)))).names
      ('data',)
    """
    metadata = {} if mesh is None else {"mesh": mesh}
    return with_metadata(fn, out_sharding=names, **metadata, **{_BOX_TYPE: meta.Partitioned})
