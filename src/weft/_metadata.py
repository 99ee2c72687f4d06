"""Metadata on its way from an initializer into a Variable.

*Hooks* are functions that a Variable calls when its value is made, read or written, or when a
transform adds or removes an axis. They travel with the rest of the metadata.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

A = TypeVar("A")

HOOKS = ("on_set_value", "on_get_value", "on_create_value", "on_add_axis", "on_remove_axis")


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
