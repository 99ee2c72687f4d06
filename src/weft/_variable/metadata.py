"""Metadata on its way from an initializer into a Variable.

*Hooks* are functions that a Variable calls when its value is made, read or written, or when a
transform adds or removes an axis. They travel with the rest of the metadata.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from jax.sharding import NamedSharding, PartitionSpec

A = TypeVar("A")

HOOKS = ("on_set_value", "on_get_value", "on_create_value", "on_add_axis", "on_remove_axis")


_OLDER_NAMES = {"sharding": "out_sharding", "sharding_names": "out_sharding"}


def current_name(name: str) -> str:
    """Returns the name of an entry of the metadata that may be asked for by an older name."""
    return _OLDER_NAMES.get(name, name)


def with_current_names(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metadata with its entries under their current names.

    Raises:
      ValueError: if one entry is given under two names, with different values.
    """
    renamed: dict[str, Any] = {}
    for name, value in metadata.items():
        found = renamed.setdefault(current_name(name), value)
        if found is not value and found != value and _names_of(found) != _names_of(value):
            raise ValueError(
                f"`sharding` and `sharding_names` are older names of `out_sharding`: found "
                f"{found!r} under one of them and {value!r} under another. "
                f"Give one, `out_sharding={value!r}`"
            )
    return renamed


def _names_of(sharding: Any) -> Any:
    return tuple(sharding) if isinstance(sharding, (tuple, list, PartitionSpec)) else sharding


# -- shardings: what `out_sharding` may be
def axis_names(sharding: Any) -> tuple[Any, ...]:
    """Returns the names in a sharding, one per dimension: of a tuple, a spec or a sharding."""
    return tuple(sharding.spec if isinstance(sharding, NamedSharding) else sharding)


def with_axis_names(sharding: Any, names: Iterable[Any]) -> Any:
    """Returns a sharding of the same kind with other names."""
    if isinstance(sharding, NamedSharding):
        spec = PartitionSpec(*names)
        return NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    return PartitionSpec(*names) if isinstance(sharding, PartitionSpec) else tuple(names)


@dataclasses.dataclass(frozen=True)
class VariableMetadata(Generic[A]):
    """A value on its way into a Variable, with the metadata and hooks the Variable shall get.

    An initializer wrapped by `with_metadata` returns one.

    Attributes:
      raw_value: the value.
      metadata: keyword metadata.

    Example:
      >>> import weft as nnx
      >>> nnx.Param(nnx.VariableMetadata(1.0, metadata={"group": "slow"})).group
      'slow'
    """

    raw_value: A
    on_set_value: tuple[Callable, ...] = ()
    on_get_value: tuple[Callable, ...] = ()
    on_create_value: tuple[Callable, ...] = ()
    on_add_axis: tuple[Callable, ...] = ()
    on_remove_axis: tuple[Callable, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def as_keywords(self) -> dict[str, Any]:
        """Returns metadata and hooks as keyword arguments of a Variable."""
        hooks = {name: getattr(self, name) for name in HOOKS if getattr(self, name)}
        return {**self.metadata, **hooks}


def with_metadata(
    initializer: Callable[..., Any],
    on_set_value: Any = (),
    on_get_value: Any = (),
    on_create_value: Any = (),
    on_add_axis: Any = (),
    on_remove_axis: Any = (),
    **metadata: Any,
) -> Callable[..., VariableMetadata]:
    """Wraps an initializer such that the Variable made from its result gets metadata and hooks.

    Args:
      initializer: a function that returns an array.
      on_set_value: hooks `(variable, value) -> value` called on writing; one or several.
      on_get_value: likewise, on reading.
      on_create_value: likewise, when the Variable is made.
      on_add_axis: hooks `(variable, index, name)` called when a transform adds an axis.
      on_remove_axis: likewise, when it removes one.
      **metadata: keyword metadata.

    Returns:
      A function of the same arguments that returns a `VariableMetadata`.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> init = nnx.with_metadata(nnx.initializers.zeros_init(), group="decay")
      >>> nnx.Param(init(jax.random.key(0), (2,))).group
      'decay'
    """
    given = (on_set_value, on_get_value, on_create_value, on_add_axis, on_remove_axis)
    hooks = {
        name: (hook,) if callable(hook) else tuple(hook)
        for name, hook in zip(HOOKS, given, strict=True)
    }

    @functools.wraps(initializer)
    def with_metadata_initializer(*args: Any, **kwargs: Any) -> VariableMetadata:
        value = initializer(*args, **kwargs)
        if not isinstance(value, VariableMetadata):
            return VariableMetadata(value, **hooks, metadata=metadata)
        joined = {name: (*getattr(value, name), *hooks[name]) for name in HOOKS}
        return VariableMetadata(value.raw_value, **joined, metadata={**value.metadata, **metadata})

    return with_metadata_initializer
