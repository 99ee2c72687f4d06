"""Records: the structure of a graph without its arrays.

An object's *index* is its place in the order in which the walk first meets objects. A *record*
describes one value: an object (`NodeDef`), a Variable (`VariableDef`), something immutable that
holds data (`ValueDef`), an array (`ARRAY`), a reference to what has an index already (`Ref`), or a
static value (`Static`). Records are tuples, so that comparing and hashing run in C; the tag that
ends each keeps records of different classes apart. A method or partial of an object that is met
only later (`Late`) is the one exception. A `GraphDef` is the record of the root.
"""

# A record's `index` hides the method of that name that tuples have.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax.tree_util as jtu

from weft._core.path import Path
from weft._core.static import Static, Watched
from weft._variable.variable import Variable

N = TypeVar("N")


class Ref(NamedTuple):
    """An object or Variable that was met before."""

    index: int
    tag: str = "ref"


class ArrayDef(NamedTuple):
    """An array (or another leaf) that no Variable holds."""

    tag: str = "array"


@dataclasses.dataclass(frozen=True, slots=True)
class ValueTree:
    """A treedef that, unlike JAX's, may be compared with None."""

    treedef: Any

    @property
    def num_leaves(self) -> int:
        return self.treedef.num_leaves

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        return jtu.tree_unflatten(self.treedef, leaves)

    def __repr__(self) -> str:
        return str(self.treedef)


class VariableDef(NamedTuple):
    """A Variable; `treedef` is None where its value is a single leaf.

    Example:
      >>> import weft as nnx
      >>> graphdef, state = nnx.split(nnx.Param(1.0))
      >>> isinstance(graphdef.nodes[0], nnx.graphlib.VariableDef)
      True
    """

    index: int
    type: type[Variable]
    metadata: Static
    treedef: ValueTree | None
    tag: str = "variable"


class NodeDef(NamedTuple):
    """An object or mutable container; `extra` is what else its type needs to be made.

    Example:
      >>> import weft as nnx
      >>> graphdef, state = nnx.split(nnx.PReLU())
      >>> graphdef.nodes[0].type.__name__, graphdef.nodes[0].keys
      ('PReLU', ('dtype', 'negative_slope', 'param_dtype', 'promote_dtype'))
    """

    index: int
    type: type
    keys: tuple[Any, ...]
    children: tuple[Any, ...]
    extra: Static
    tag: str = "node"


class ValueDef(NamedTuple):
    """An immutable container or a foreign pytree; `how` is its type or its treedef."""

    how: Any
    keys: tuple[Any, ...]
    children: tuple[Any, ...]
    tag: str = "value"


class Old(NamedTuple):
    """What an existing object holds under this key already."""

    key: Any
    tag: str = "old"


class OldLeaf(NamedTuple):
    """The array that came in at this position among all leaves."""

    position: int
    tag: str = "old leaf"


class OldStatic(NamedTuple):
    """The static value that came in at this position among all of them."""

    position: int
    tag: str = "old static"


class LateRef(NamedTuple):
    """An object of this type that is met later."""

    index: int
    type: type
    tag: str = "late ref"


class Late:
    """A method or partial of an object that has no index yet: static, until it gets one.

    Attributes:
      record: what it is: static, or a `ValueDef` that refers to the object.
    """

    __slots__ = ("record",)

    def __init__(self, record: Record):
        self.record = record

    def __hash__(self) -> int:
        return hash(self.record)

    def __eq__(self, other: object) -> bool:
        return type(other) is Late and self.record == other.record

    def __repr__(self) -> str:
        return f"Late({self.record!r})"


ARRAY = ArrayDef()
Record = (
    Ref
    | ArrayDef
    | VariableDef
    | NodeDef
    | ValueDef
    | Old
    | OldLeaf
    | OldStatic
    | Static
    | LateRef
    | Late
)


def children_of(record: Record) -> Iterator[tuple[Any, Record]]:
    """Returns the keys and records directly inside a record."""
    if isinstance(record, (NodeDef, ValueDef)):
        return zip(record.keys, record.children, strict=True)
    return iter(())


def iter_records(record: Record, path: Path = ()) -> Iterator[tuple[Path, Record]]:
    """Yields all records of a graph with their paths, parents first."""
    waiting = [(path, record)]
    while waiting:
        path, record = waiting.pop()
        yield path, record
        below = [((*path, key), child) for key, child in children_of(record)]
        waiting.extend(reversed(below))


def watched_in(record: Record) -> Iterator[Watched]:
    """Yields what may change in place in the static values of a graph."""
    for _, inner in iter_records(record):
        if isinstance(inner, Static):
            yield from inner.watched
        elif isinstance(inner, VariableDef):
            yield from watched_metadata(inner.metadata)


def watched_metadata(metadata: Static) -> Iterator[Watched]:
    """Yields what may change in place in metadata."""
    for watched in metadata.watched:
        if watched.value is not metadata.value:  # the dict: another one takes its place
            yield watched


def inside_first(record: Record, path: Path = ()) -> Iterator[tuple[Path, Record]]:
    """Yields all records of a graph with their paths, children first."""
    entered = [(path, record, children_of(record))]
    while entered:
        path, record, rest = entered[-1]
        for key, child in rest:
            entered.append(((*path, key), child, children_of(child)))
            break
        else:
            entered.pop()
            yield path, record


def leaves_of(record: Record) -> list[tuple[Path, VariableDef | ArrayDef]]:
    """Returns the paths and records of all Variables and arrays, in the order of the walk."""
    return [(p, r) for p, r in iter_records(record) if isinstance(r, (VariableDef, ArrayDef))]


@jtu.register_static
class GraphDef(Generic[N]):
    """The structure of a graph without its arrays: what `split` returns and `merge` takes.

    Compares by value and is hashed when first needed; a JAX pytree without leaves.

    Example:
      >>> import weft as nnx
      >>> a, _ = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> b, _ = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(1)))
      >>> a == b
      True
    """

    __slots__ = ("_hash", "assembly", "root")

    def __init__(self, root: Record):
        self.root = root
        self.assembly: Any = None  # how to make the objects, once somebody has asked
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.root)
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is GraphDef and self.root == other.root)

    @property
    def nodes(self) -> list[Record]:
        """Records of the objects and Variables, in the order of their indices."""
        return [r for _, r in iter_records(self.root) if isinstance(r, (NodeDef, VariableDef))]

    @property
    def attributes(self) -> list[tuple[Any, Record]]:
        """Keys and records of everything inside the objects, in the order of the walk."""
        return [(path[-1], record) for path, record in iter_records(self.root) if path]

    @property
    def num_leaves(self) -> int:
        """How many Variables and arrays the graph has."""
        return len(leaves_of(self.root))

    apply: Callable[..., Any]  # set where proxies are, which need all that GraphDefs are for

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])

    def __repr__(self) -> str:
        names = [f"{_name(record)}" for record in self.nodes]
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        return f"GraphDef({len(names)} nodes, {self.num_leaves} leaves: {shown})"


def _name(record: Any) -> str:
    return record.type.__name__


def describe_difference(
    expected: Record, found: Record, path: Path = ()
) -> tuple[Path, str, str] | None:
    """Finds the first place where two graphs differ: its path and both sides in words."""
    if isinstance(expected, NodeDef) and isinstance(found, NodeDef):
        if expected.type is not found.type:  # then what is inside is no news
            return path, _describe(expected), _describe(found)
    if type(expected) is type(found):
        if isinstance(expected, (NodeDef, ValueDef)) and isinstance(found, (NodeDef, ValueDef)):
            for key in expected.keys:
                if key not in found.keys:
                    return (*path, key), _describe(dict(children_of(expected))[key]), "nothing"
            for key, child in children_of(found):
                if key not in expected.keys:
                    return (*path, key), "nothing", _describe(child)
            inside = dict(children_of(expected))
            for key, child in children_of(found):
                difference = describe_difference(inside[key], child, (*path, key))
                if difference is not None:
                    return difference
    if expected != found:
        return path, _describe(expected), _describe(found)
    return None


def _describe(record: Record) -> str:
    match record:
        case Static():
            return f"{record.value!r} (static)"
        case NodeDef():
            return f"a {record.type.__name__}"
        case VariableDef():
            tree = f" holding {record.treedef}" if record.treedef is not None else ""
            metadata = f" with metadata {record.metadata.value}" if record.metadata.value else ""
            return f"a {record.type.__name__}{tree}{metadata}"
        case ValueDef():
            return f"a {getattr(record.how, '__name__', record.how)}"
        case Ref() | LateRef():
            return f"a reference to object {record.index}"
        case Late():
            return _describe(record.record)
        case OldStatic():
            return f"static value {record.position} of the arguments"
    return "an array"
