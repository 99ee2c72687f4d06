"""Names of Variable types, as Linen collections and `sow` call them.

A *collection name* stands for one Variable type: `"params"` for `Param`. Each name has one type and
each type at most one name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from weft._core.types import MISSING, Missing
from weft._variable.types import BatchStat, Cache, Intermediate, Param, Perturbation
from weft._variable.variable import Variable

T = TypeVar("T", bound=type[Variable])

_TYPES: dict[str, type[Variable]] = {
    "params": Param,
    "batch_stats": BatchStat,
    "cache": Cache,
    "intermediates": Intermediate,
    "perturbations": Perturbation,
}
_NAMES: dict[type[Variable], str] = {kind: name for name, kind in _TYPES.items()}


@overload
def register_variable_name(name: str, typ: T, *, overwrite: bool = False) -> T: ...
@overload
def register_variable_name(
    name: str, typ: Missing = ..., *, overwrite: bool = False
) -> Callable[[T], T]: ...
def register_variable_name(name: str, typ: Any = MISSING, *, overwrite: bool = False) -> Any:
    """Gives a Variable type a collection name; usable as decorator.

    Args:
      name: the collection name.
      typ: the Variable type. If missing, a decorator is returned.
      overwrite: whether a name that stands for another type may change its meaning.

    Returns:
      The type.

    Raises:
      ValueError: if the name stands for another type already.

    Example:
      >>> import weft as nnx
      >>> @nnx.register_variable_name("running_norms")
      ... class RunningNorm(nnx.Variable):
      ...     pass
      >>> nnx.variable_name_from_type(RunningNorm)
      'running_norms'
    """
    if isinstance(typ, Missing):
        return lambda kind: register_variable_name(name, kind, overwrite=overwrite)
    taken = _TYPES.get(name)
    if taken is not None and taken is not typ and not overwrite:
        raise ValueError(
            f"the collection name {name!r} stands for {taken.__name__} already: choose another, or "
            f"`nnx.register_variable_name({name!r}, {typ.__name__}, overwrite=True)`"
        )
    if taken is not None:
        _NAMES.pop(taken, None)
    _TYPES.pop(_NAMES.get(typ, ""), None)
    _TYPES[name] = typ
    _NAMES[typ] = name
    return typ


def variable_type_from_name(
    name: str, /, *, base: type[Variable] = Variable, allow_register: bool = False
) -> type[Variable]:
    """Returns the Variable type that a collection name stands for.

    Args:
      name: the collection name.
      base: the class to derive a new type from.
      allow_register: whether an unknown name gets a new type.

    Raises:
      ValueError: for an unknown name without `allow_register`.

    Example:
      >>> import weft as nnx
      >>> nnx.variable_type_from_name("batch_stats").__name__
      'BatchStat'
    """
    if name not in _TYPES:
        if not allow_register:
            raise ValueError(
                f"no Variable type has the collection name {name!r}; known are {sorted(_TYPES)}. "
                f"Give it a type with `nnx.register_variable_name({name!r}, MyVariable)`, or pass "
                "`allow_register=True`"
            )
        register_variable_name(name, type(name, (base,), {"__slots__": ()}))
    return _TYPES[name]


def variable_name_from_type(typ: type[Variable], /, *, allow_register: bool = False) -> str:
    """Returns the collection name of a Variable type.

    Args:
      typ: the Variable type.
      allow_register: whether a type without a name gets that of its class.

    Raises:
      ValueError: for a type without a name, unless `allow_register` gives it one that is free.

    Example:
      >>> import weft as nnx
      >>> nnx.variable_name_from_type(nnx.Param)
      'params'
    """
    if typ not in _NAMES:
        if not allow_register:
            raise ValueError(
                f"{typ.__name__} has no collection name; types that have one are "
                f"{sorted(kind.__name__ for kind in _NAMES)}. Give it one with "
                f"`nnx.register_variable_name('name', {typ.__name__})`, or pass "
                "`allow_register=True`"
            )
        register_variable_name(typ.__name__, typ)
    return _NAMES[typ]
