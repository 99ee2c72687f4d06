"""Cycles among objects, which a JAX pytree cannot express.

JAX flattens depth first and asks each object for its children, telling nobody where it is. The
*open* objects are those whose children JAX has not all asked for yet; an object that is met again
while it is open may contain itself, and only then is it searched.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from weft._core.errors import CycleError
from weft._core.path import Path, format_path
from weft._object import kinds
from weft._object.kinds import Kind, kind_of
from weft._variable.storage import ObjectStorage

_WITHOUT_OBJECTS = (Kind.STATIC, Kind.ARRAY, Kind.VARIABLE, Kind.BOUND)


class _Open(threading.local):
    def __init__(self) -> None:
        # Address, and how often each object below is still to come: a shared one comes twice.
        self.stack: list[tuple[int, dict[int, int]]] = []


_open = _Open()


def refuse_cycle(obj: Any, below: Iterable[Any]) -> None:
    """Notes that JAX flattens an object, and raises if the object contains itself.

    Args:
      obj: the object.
      below: the nearest objects in it, one as often as JAX will meet it.

    Raises:
      CycleError: naming the path at which the object is met again.
    """
    stack, address = _open.stack, id(obj)
    while stack and not stack[-1][1].get(address):
        stack.pop()
    if stack:
        stack[-1][1][address] -= 1
        if any(address == open_address for open_address, _ in stack):
            path = _path_to_itself(obj)
            if path is not None:
                stack.clear()
                name = type(obj).__name__
                raise cycle_error(path, name, f"the {name} itself")
    ids = list(map(id, below))
    if ids:
        counts = dict.fromkeys(ids, 1)
        stack.append((address, counts if len(counts) == len(ids) else Counter(ids)))


def cycle_error(path: Path, root: str, what: str) -> CycleError:
    """Explains that JAX cannot flatten what contains itself."""
    return CycleError(
        f"{format_path(path, root)} is {what}: a cycle has no pytree form. Use `nnx.split`, "
        "`nnx.jit` and the other transforms of Weft, which allow cycles, or remove the reference "
        "before using `jax.tree` or `jax.jit`"
    )


objects_among: Callable[[Iterable[Any]], Iterator[Any]] = functools.partial(
    filter, ObjectStorage.__instancecheck__
)
"""Returns those of some values that are objects."""


def nearest_objects(value: Any) -> list[Any]:
    """Returns the objects in a value that are in no other object of it."""
    kind = kind_of(value)
    if kind is Kind.OBJECT:
        return [value]
    if kind in _WITHOUT_OBJECTS:
        return []
    found: list[Any] = []
    for child in kinds.children_of(value, kind):
        found.extend(nearest_objects(child))
    return found


def _path_to_itself(target: Any) -> Path | None:
    """Finds a path from an object back to it, by depth-first search."""
    return _search(target, target, (), {})


def _search(target: Any, value: Any, path: Path, seen: dict[int, Any]) -> Path | None:
    kind = kind_of(value)
    if kind in _WITHOUT_OBJECTS:
        return None
    if value is target and path:
        return path
    if id(value) in seen:
        return None
    seen[id(value)] = value  # alive, so that no address is used twice
    is_object = kind is Kind.OBJECT
    items = value._pytree_items() if is_object else kinds.items_in(value, kind)
    for key, child in items:
        found = _search(target, child, (*path, key), seen)
        if found is not None:
            return found
    return None
