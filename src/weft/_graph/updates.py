"""`update`: writing the values of States into an object, in place.

A *place* is where a value goes: a Variable, or an array that no Variable holds, as an item of a
*holder*, the innermost container around it that can be changed. What lies between the two, such as
a tuple or a dataclass that JAX knows, is made anew around the new array. All places are found and
all values compared with what is there before anything is written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._core.tracebacks import boundary
from weft._core.types import MISSING, SCALAR_TYPES
from weft._graph.api import flatten_given, shares, take_apart, variables, whole_values
from weft._graph.overwrite import overwrite_values
from weft._graph.state import holds_tree
from weft._graph.walk import items_of
from weft._object import kinds
from weft._object.kinds import Kind, kind_of
from weft._object.node_types import refill, value_type
from weft._object.pytree import Pytree
from weft._object.pytree import check_write as check_object_write
from weft._variable.guard import check_write
from weft._variable.keeper import check_kept
from weft._variable.types import Intermediate
from weft._variable.values import is_leaf, own_value
from weft._variable.variable import Variable


@boundary
def update(node: Any, state: Any, /, *states: Any) -> None:
    """Writes Variables or plain values into an object, in place.

    Only an `Intermediate`, which a forward pass may have sown, may be new to the object.

    Args:
      node: an object, or a pytree of objects.
      state: a State, a pure dict, or an object of the same structure; it may leave out some of it.
      *states: further ones; later ones win.

    Raises:
      StructureError: naming the paths that the object does not have, and those where the shape is
        another one; nothing is written then.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.update(model, {"bias": jnp.ones(3)})
      >>> float(model.bias.sum())
      3.0
    """
    if not states and overwrite_values(node, state, share=shares(None)):
        return
    content = take_apart(node)
    own = dict(content.items())
    trees = {path for path, value in own.items() if holds_tree(value)}
    new: dict[Path, Any] = {}
    parts = [variables(x) if isinstance(x, Pytree) else x for x in (state, *states)]
    if own.keys() == {()}:
        new.update(((), value) for value in whole_values(parts))
    else:
        for part in parts:
            new.update(flatten_given(part, trees))
    writes = _Writes(node)
    for path, value in new.items():
        writes.add(path, value, own.get(path, MISSING))
    writes.check()
    writes.store()


class _Holder(NamedTuple):
    """A container that can be changed, and the items it gets: values by path below the key."""

    container: Any
    items: dict[Any, dict[Path, Any]]


class _Writes:
    """Everything that one `update` writes into an object."""

    def __init__(self, node: Any):
        self.node = node
        self.variables: list[tuple[Variable, Any]] = []
        self.holders: dict[int, _Holder] = {}
        self.faults: list[str] = []

    def add(self, path: Path, value: Any, known: Any) -> None:
        """Adds a value for a path; `known` is what the walk found there."""
        chain = _containers(self.node, path)
        target = known
        if known is MISSING and chain is not None:  # other references have paths as well
            target = dict(items_inside(chain[-1])).get(path[-1], MISSING)
        if isinstance(target, Variable):
            if value is not target:
                self._note_misfit(
                    path, target._raw, _raw_of(value), isinstance(target, Intermediate)
                )
                self.variables.append((target, value))
        elif known is not MISSING or kind_of(target) is Kind.ARRAY:
            self._note_misfit(path, target, _raw_of(value))
            self._add_item(path, chain, _raw_of(value))
        elif target is MISSING and isinstance(value, Intermediate) and _takes_new(chain, path):
            self._add_item(path, chain, value.copy())
        elif target is MISSING or not isinstance(value, Variable):
            self.faults.append(f"unexpected: {format_path(path)}")
        else:
            found = f"a {type(target).__name__}, found a {type(value).__name__}"
            self.faults.append(f"{format_path(path)}: expected what belongs into {found}")

    def _add_item(self, path: Path, chain: list[Any] | None, value: Any) -> None:
        for i in reversed(range(len(chain or ()))):
            container = chain[i]  # type: ignore[index]
            if kind_of(container) in _HOLDERS:
                holder = self.holders.setdefault(id(container), _Holder(container, {}))
                holder.items.setdefault(path[i], {})[path[i + 1 :]] = value
                return
        inside = f" inside a {type(self.node).__name__}" if path else ""
        where = format_path(path) if path else "it"
        self.faults.append(
            f"{where} is an array{inside}, which cannot be changed in place: hold it in a "
            "Variable, or in a list"
        )

    def _note_misfit(self, path: Path, old: Any, new: Any, grows: bool = False) -> None:
        misfit = _misfit(old, new, grows)
        if misfit is not None:
            self.faults.append(f"{format_path(path)}: {misfit}")

    def check(self) -> None:
        """Raises unless everything can be written."""
        name = type(self.node).__name__
        if self.faults:
            more = len(self.faults) - 20
            lines = self.faults[:20] + ([f"and {more} more"] if more > 0 else [])
            raise StructureError(
                f"the state does not fit the {name} to update, and nothing was written:\n  "
                + "\n  ".join(lines)
                + "\nGive a state of the same model, whole or in part: compare with "
                "`nnx.to_flat_state(nnx.state(model)).paths`"
            )
        for target, value in self.variables:
            check_write(target)
            metadata = Static(value._metadata) if isinstance(value, Variable) else None
            check_kept(target, _raw_of(value), metadata)
        for container, items in self.holders.values():
            if isinstance(container, Pytree):
                check_object_write(container, next(iter(items)))

    def store(self) -> None:
        """Writes it: what may fail, as making a user's pytree may, comes before anything else."""
        made = [(holder.container, _remade(*holder)) for holder in self.holders.values()]
        for target, value in self.variables:
            if isinstance(value, Variable):
                target.update_from_state(value)
            else:
                target.set_raw_value(own_value(value))
        for container, items in made:
            store_items(container, items)


def _remade(container: Any, items: dict[Any, dict[Path, Any]]) -> dict[Any, Any]:
    own = dict(items_inside(container))
    return {key: _with(own.get(key), changes) for key, changes in items.items()}


def _with(value: Any, changes: dict[Path, Any]) -> Any:
    """Returns a value that cannot be changed with other arrays at some paths in it."""
    if () in changes:
        return changes[()]
    below: dict[Any, dict[Path, Any]] = {}
    for path, new in changes.items():
        below.setdefault(path[0], {})[path[1:]] = new
    treedef = None
    if kind_of(value) is Kind.FOREIGN:
        keys, parts, treedef = kinds.split_foreign(value)
    else:
        keys, parts = value_type(type(value)).split(value)
    pairs = zip(keys, parts, strict=True)
    made = tuple(_with(part, below[key]) if key in below else part for key, part in pairs)
    if treedef is not None:
        return jtu.tree_unflatten(treedef, made)
    return value_type(type(value)).join(type(value), keys, made)


def store_items(container: Any, items: dict[Any, Any]) -> None:
    """Puts items into an object or container that can be changed."""
    if isinstance(container, Pytree) and type(container)._pytree_is_plain:
        for name, value in items.items():
            Pytree.__setattr__(container, name, value)
        return
    whole = dict(items_of(container)) | items
    if isinstance(container, Pytree):
        container._pytree_replace(list(whole.items()))
    else:
        refill(container, list(whole.items()))


def _containers(node: Any, path: Path) -> list[Any] | None:
    """Returns the containers on the way to a path; None if there is no such way."""
    chain = [node]
    for key in path[:-1]:
        inside = dict(items_inside(chain[-1]))
        if key not in inside:
            return None
        chain.append(inside[key])
    return chain if path else []


def items_inside(container: Any) -> list[tuple[Any, Any]]:
    """Returns what is directly in a value; nothing of what is no container."""
    kind = kind_of(container)
    if kind is Kind.OBJECT:
        return items_of(container)
    return list(kinds.items_in(container, kind)) if kind in _CONTAINERS else []


_HOLDERS = (Kind.OBJECT, Kind.NODE, Kind.INSTANCE)
_CONTAINERS = (Kind.NODE, Kind.INSTANCE, Kind.VALUE, Kind.FOREIGN)


def _takes_new(chain: list[Any] | None, path: Path) -> bool:
    return bool(chain) and isinstance(chain[-1], (Pytree, dict)) and isinstance(path[-1], str)


def _raw_of(value: Any) -> Any:
    return value._raw if isinstance(value, Variable) else value


def _misfit(old: Any, new: Any, grows: bool) -> str | None:
    """Says why a value cannot take the place of another one; None if it can."""
    if is_leaf(old) and is_leaf(new):
        expected, found = _shape(old), _shape(new)
        if expected == found or expected is None or found is None:
            return None
        return f"expected shape {expected}, found {found}"
    if is_leaf(old):
        return None if _shape(old) is None else f"expected an array, found a {type(new).__name__}"
    structure = jtu.tree_structure(old)
    if structure == jtu.tree_structure(new):
        shapes = [list(map(_shape, jtu.tree_leaves(x))) for x in (old, new)]
        return None if shapes[0] == shapes[1] else f"expected shapes {shapes[0]}, found {shapes[1]}"
    if grows or not structure.num_leaves:
        return None
    return f"expected a value of structure {structure}, found {jtu.tree_structure(new)}"


def _shape(x: Any) -> tuple[int, ...] | None:
    return () if isinstance(x, SCALAR_TYPES) else getattr(x, "shape", None)
