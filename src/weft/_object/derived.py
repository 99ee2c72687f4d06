"""Derived attributes: `functools.cached_property` on a class of objects.

Kept values are attributes like any other, so an array that was worked out from Variables would be
data of its own: it would not change with these, no gradient would pass through it, and inside a
transform it would be a tracer that others find later. That is why a value that holds arrays is
worked out each time; inside a compiled function this costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from weft._core import trace
from weft._object.kinds import Kind, holds_arrays, holds_data, kind_of
from weft._variable import watch
from weft._variable.storage import attributes


class Derived(functools.cached_property):
    """A cached property that keeps only what stays right.

    Args:
      function: works the value out.
      name: of the attribute.
    """

    def __init__(self, function: Callable[[Any], Any], name: str):
        super().__init__(function)
        self.attrname = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        own, name = attributes(instance), str(self.attrname)
        if name in own:  # asked past the usual way, which finds an attribute first
            return own[name]
        value = self.func(instance)
        if _is_kept(instance, value):
            own[name] = value
            if instance._pytree_watches:
                watch.void(instance._pytree_watches)
        return value


def _is_kept(instance: Any, value: Any) -> bool:
    if instance._pytree_trace != trace.current() or holds_arrays(value):
        return False
    # Inside a trace even a function may hold tracers; but what may be changed later has to stay.
    return trace.is_outermost() or holds_data(value) or kind_of(value) is Kind.NODE
