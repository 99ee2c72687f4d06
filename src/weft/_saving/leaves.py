"""Objects as leaves by path, and back: what is saved of a set of named objects.

Each leaf is met once. What is reached on other paths as well is *shared*: those paths, or paths
that theirs begin with, are known by the path at which the leaf is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu

from weft._core.path import Path, key_of_entry
from weft._core.types import SCALAR_TYPES
from weft._graph import find_duplicates, from_flat_state, state, to_flat_state, update
from weft._graph.updates import items_inside
from weft._object.kinds import Kind, hides_data, kind_of, lists_fields
from weft._sharding.abstract_model import as_abstract
from weft._variable.variable import Variable, raw_value

Shared = Mapping[Path, Path]
"""By further path the path of the same object or Variable."""


def leaves_in(flat: Iterable[tuple[Path, Any]]) -> Iterator[tuple[Path, Any]]:
    """Yields the leaves in Variables and arrays; the path goes on inside a Variable."""
    for path, leaf in flat:
        for keys, value in jtu.tree_leaves_with_path(raw_value(leaf)):
            yield path + tuple(map(key_of_entry, keys)), value


def leaves_of(objects: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yields the leaves of named objects, each once, with their paths."""
    return leaves_in(to_flat_state(state(dict(objects))))


class Objects:
    """Named objects as leaves by path.

    Args:
      objects: by name, objects, or containers of objects, Variables and arrays.

    Attributes:
      leaves: arrays, keys and Python numbers by path.
      shared: further paths.
    """

    def __init__(self, objects: Mapping[str, Any]):
        # A tuple, which `update` cannot change: an array that is itself an object is refused.
        self._names = sorted(objects)
        self._node = tuple([objects[name] for name in self._names])
        self._flat = [
            ((self._names[path[0]], *path[1:]), leaf)
            for path, leaf in to_flat_state(state(self._node))
        ]
        self.leaves = dict(leaves_in(self._flat))
        self.shared = {
            self._named(path): self._named(first)
            for first, *others in find_duplicates(self._node)
            for path in others
        }

    def _named(self, path: Path) -> Path:
        return (self._names[path[0]], *path[1:])

    def placed(self) -> dict[Path, Any]:
        """Returns the leaves, abstract ones with the sharding that the metadata of theirs asks for.

        Without a mesh, of the Variable or by `jax.set_mesh`, they are as they are.
        """
        open_ = [
            (path, leaf)
            for path, leaf in self._flat
            if any(
                isinstance(x, jax.ShapeDtypeStruct) and x.sharding is None
                for _, x in leaves_in([(path, leaf)])
            )
        ]
        planned = to_flat_state(as_abstract(from_flat_state(open_))) if open_ else ()
        return {**self.leaves, **dict(leaves_in(planned))}

    def stray(self, meta: str) -> list[tuple[Path, str]]:
        """Returns what is given to be saved and would not be: the path, and what is wrong.

        Args:
          meta: by what name plain numbers can be given.
        """
        found = []
        for name, node in zip(self._names, self._node, strict=True):
            parts = [part for part in _parts(node, (name,)) if part.value is not None]
            faults = [(part.path, fault) for part in parts if (fault := _fault(part, meta))]
            if not faults and parts and not any(kind_of(part.value) in _STATE for part in parts):
                what = f"{_with_article(type(node).__name__)}, in which nothing can be saved"
                faults = [((name,), f"{what}: give models, optimizers, Variables or arrays")]
            found += faults
        return found

    def fixed(self) -> list[Path]:
        """Returns the paths of arrays that nothing can be written into."""
        return [
            part.path
            for name, node in zip(self._names, self._node, strict=True)
            for part in _parts(node, (name,))
            if kind_of(part.value) is Kind.ARRAY and not part.is_held
        ]

    def write(self, values: Mapping[Path, Any]) -> None:
        """Writes leaves by path, in place, all or none; the others stay."""
        flat = {}
        for path, leaf in self._flat:
            own = (self._names.index(path[0]), *path[1:])
            keys, structure = jtu.tree_flatten_with_path(raw_value(leaf))
            paths = [path + tuple(map(key_of_entry, key)) for key, _ in keys]
            if not any(inner in values for inner in paths):
                continue
            new = [values.get(inner, old) for inner, (_, old) in zip(paths, keys, strict=True)]
            raw = jax.tree.unflatten(structure, new)
            flat[own] = leaf.copy(raw) if isinstance(leaf, Variable) else raw
        update(self._node, from_flat_state(flat))


class _Part(NamedTuple):
    """What is in a container, and in no object; `is_held` says whether it can be changed there."""

    path: Path
    value: Any
    is_held: bool


_STATE = (Kind.ARRAY, Kind.VARIABLE, Kind.OBJECT)
_CHANGEABLE = (Kind.NODE, Kind.INSTANCE)
_CONTAINERS = (*_CHANGEABLE, Kind.VALUE, Kind.FOREIGN)


def _parts(
    value: Any, path: Path, is_held: bool = False, around: tuple[int, ...] = ()
) -> Iterator[_Part]:
    """Yields what is in containers, which are looked into; not in objects."""
    kind = kind_of(value)
    if kind not in _CONTAINERS or (kind is Kind.INSTANCE and not lists_fields(type(value))):
        yield _Part(path, value, is_held)
    elif id(value) not in around:
        is_held = is_held or kind in _CHANGEABLE
        for key, child in items_inside(value):
            yield from _parts(child, (*path, key), is_held, (*around, id(value)))


def _fault(part: _Part, meta: str) -> str | None:
    """Says why what is in a container is no state, if that is to be said."""
    if isinstance(part.value, (*SCALAR_TYPES, str, bytes)):
        return (
            f"a plain number or text, which is no state: give it as `{meta}={{{part.path[-1]!r}: "
            "...}`, or hold it in an `nnx.Variable`"
        )
    if kind_of(part.value) is Kind.INSTANCE and hides_data(part.value):
        return (
            f"{_with_article(type(part.value).__name__)}, a class that cannot be looked into: "
            "make it an `nnx.Module` or a dataclass, or hold its arrays in a dict"
        )
    return None


def _with_article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in tuple("aeiou") else f"a {name}"


def resolve(path: Path, shared: Shared) -> Path:
    """Returns the path at which a leaf is, given one at which it is as well."""
    for _ in path:
        heads = (path[:n] for n in range(len(path), 0, -1))
        head = next((head for head in heads if head in shared), None)
        if head is None:
            break
        path = shared[head] + path[len(head) :]
    return path
