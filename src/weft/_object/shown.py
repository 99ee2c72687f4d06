"""Which attributes an object shows of itself, and in which order."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

from weft._core.static import Static
from weft._object.kinds import holds_data
from weft._variable.storage import attributes


def shown_attributes(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yields the attributes of an object that say something, in the order of their definition."""
    defaults = _defaults(type(obj))
    own = attributes(obj)
    names = list(own)
    if names == sorted(names):  # what was put together again has lost the order
        order = _order_of_definition(type(obj))
        names.sort(key=lambda name: order.get(name, len(order)))
    for name, value in ((name, own[name]) for name in names):
        if name not in defaults or not _is_default(value, defaults[name]):
            yield name, value


@functools.cache
def _order_of_definition(cls: type) -> dict[str, int]:
    """Returns the places of attributes in the order in which the constructors set them.

    Those that a method sets, which a constructor calls, follow.
    """
    found: dict[str, int] = {}
    for base in reversed(cls.__mro__):
        init = inspect.unwrap(vars(base).get("__init__", object.__init__))
        called = getattr(getattr(init, "__code__", None), "co_names", ())
        for function in (init, *(getattr(cls, name, None) for name in called)):
            if isinstance(function, types.FunctionType):
                for step in dis.get_instructions(inspect.unwrap(function)):
                    if step.opname == "STORE_ATTR":
                        found.setdefault(step.argval, len(found))
    return found


_PACKAGE = "weft."


@functools.cache  # kept for good, as JAX keeps every class that is registered as a pytree
def _defaults(cls: type) -> dict[str, Any]:
    """Returns the defaults of the constructor, as far as it is one of Weft.

    What users set themselves they want to see.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        init = vars(base).get("__init__")
        if base.__module__.startswith(_PACKAGE) and isinstance(init, types.FunctionType):
            for parameter in inspect.signature(init).parameters.values():
                if parameter.default is not inspect.Parameter.empty:
                    found[parameter.name] = parameter.default
    return found


def _is_default(value: Any, default: Any) -> bool:
    if value is default:
        return True
    return (
        type(value) is type(default) and not holds_data(value) and Static(value) == Static(default)
    )
