"""The walk: `Flattener` takes graphs apart, `Builder` puts them together.

These two hold the only recursions over objects in the library. Both visit in the same order: keys
sorted, numbers before names. An *entry* is what the flattener found at one leaf: path, Variable or
array, prefix. A *table* gives objects their indices; where two walks share one, an index means the
same object in both.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu

from weft._core.errors import AliasError, SharedReferenceError
from weft._core.path import Own, Path, format_path, sort_key, sorted_keys
from weft._core.static import Static, are_atoms, boxed
from weft._core.types import SCALAR_TYPES
from weft._graph import prefix as prefixes
from weft._graph.records import (
    ARRAY,
    ArrayDef,
    Late,
    LateRef,
    NodeDef,
    Old,
    OldLeaf,
    OldStatic,
    Record,
    Ref,
    ValueDef,
    ValueTree,
    VariableDef,
)
from weft._object import instances, kinds
from weft._object.boxes import hidden_data_error, hides_all
from weft._object.kinds import Kind, kind_of
from weft._object.layout import Layout, layout_of
from weft._object.node_types import make_node, node_type, value_type
from weft._object.pytree import Pytree, attributes, blank, set_marks
from weft._variable.storage import make
from weft._variable.variable import NO_METADATA, Variable, metadata_key

NONE = Static(None)
"""The record of None, and of a node that is made from nothing besides what is in it."""


class Entry(NamedTuple):
    """What was found at one leaf: a Variable, or an array that no Variable holds."""

    path: Path
    value: Any
    prefix: Any


class Spot(NamedTuple):
    """Where an object was first met, and the prefix it was met under."""

    path: Path
    prefix: Any
    base: int


class Table:
    """Objects by index, and indices by object identity."""

    __slots__ = ("indices", "objects", "spots")

    def __init__(self, objects: Iterable[Any] = ()):
        self.objects = list(objects)
        self.indices = {id(obj): i for i, obj in enumerate(self.objects)}
        self.spots: list[Spot] = []

    def add(self, obj: Any) -> int:
        index = len(self.objects)
        self.objects.append(obj)
        self.indices[id(obj)] = index
        return index


def treedef_of(raw: Any) -> ValueTree | None:
    """Returns the structure of a Variable's value, None for a single leaf."""
    if isinstance(raw, jax.Array) or jtu.all_leaves((raw,)):
        return None
    return ValueTree(jtu.tree_structure(raw))


class Flattener:
    """Takes graphs apart into a record and entries.

    Args:
      table: the objects that have an index already.
      share: False to raise where an object is met twice.
      arguments: whether the roots are arguments of a function, as JAX sees them: numbers are
        leaves, and lists and dicts have no identity.
      root: what paths in errors begin with.
      known_arrays: positions of arrays that need not come out again, by `id`.
      find_static: returns the position of a static value that need not come out again either.
      check_aliases: whether one Variable under two prefixes is an error.
      on_variable: told of each Variable and its prefix, before its metadata is read.
    """

    def __init__(
        self,
        table: Table | None = None,
        *,
        share: bool = True,
        arguments: bool = False,
        root: str = "",
        known_arrays: dict[int, int] | None = None,
        find_static: Callable[[Any], int | None] | None = None,
        check_aliases: bool = True,
        on_variable: Callable[[Variable, Any], None] | None = None,
    ):
        self.table = Table() if table is None else table
        self.share = share
        self.arguments = arguments
        self.root = root
        self.known_arrays = known_arrays or {}
        self.find_static = find_static
        self.check_aliases = check_aliases
        self.on_variable = on_variable
        self.entries: list[Entry] = []
        self.foreign: list[Any] = []  # foreign pytrees inside objects
        self._checked: set[tuple[int, int]] = set()
        self._met_again: list[tuple[Any, int, Spot]] = []
        self._boxes: dict[int, Record] = {}  # of static instances, which many layers may share
        self._late: list[tuple[Late, Any]] = []  # methods and partials of objects not met so far

    def flatten(self, value: Any, path: Path = (), prefix: Any = None) -> Record:
        """Takes one value apart; entries and table grow."""
        record = self.visit(value, Spot(path, prefix, -1), self.arguments)
        while self._met_again:  # only now is known all that is in them
            self._check_prefix(*self._met_again.pop())
        if self._late:
            self._settle_late()
        return record

    def visit(self, x: Any, spot: Spot, argument: bool = False) -> Record:
        """Visits a value; `argument` while no object has been entered."""
        return _VISITS[kind_of(x)](self, x, spot, argument)

    def _static(self, x: Any, spot: Spot, argument: bool) -> Record:
        if x is None:
            return NONE
        if argument:
            return self._emit(x, spot)
        if kinds.is_closed(x) and kinds.holds_data(x):
            raise hidden_data_error(x, spot.path, self.root)
        return self._box(x)

    def _box(self, x: Any) -> Record:
        box = boxed(x)
        if box.watched and self.find_static is not None:
            position = self.find_static(x)
            return box if position is None else OldStatic(position)
        return box

    def _instance(self, x: Any, spot: Spot, argument: bool) -> Record:
        if id(x) in self.table.indices:  # it may have lost its data meanwhile
            return self._node(x, spot, argument)
        box = self._boxes.get(id(x))
        if box is not None and not argument:
            return box
        if not kinds.holds_data(x):
            if argument:
                return self._emit(x, spot)
            box = self._boxes[id(x)] = self._box(x)
            return box
        if kinds.lists_fields(type(x)):
            return self._node(x, spot, argument)
        raise hidden_data_error(x, spot.path, self.root)

    def _marked(self, x: Any, kind: Kind, spot: Spot) -> Record:
        """Visits an attribute marked as data: a number is a leaf."""
        if isinstance(x, SCALAR_TYPES):
            return self._emit(x, spot)
        if kind is Kind.INSTANCE and kinds.hides_data(x):
            raise hidden_data_error(x, spot.path, self.root)
        return _VISITS[kind](self, x, spot, False)

    def _emit(self, x: Any, spot: Spot) -> Record:
        position = self.known_arrays.get(id(x))
        if position is not None:
            return OldLeaf(position)
        self.entries.append(Entry(spot.path, x, self._resolve(x, spot)))
        return ARRAY

    def _resolve(self, x: Any, spot: Spot) -> Any:
        prefix = spot.prefix
        if isinstance(prefix, prefixes.PrefixMapping):
            if spot.base < 0:
                return prefix.map_argument(x)
            return prefix.map_prefix(spot.path[spot.base :], x)
        return prefix

    def _array(self, x: Any, spot: Spot, argument: bool) -> Record:
        return self._emit(x, spot)

    def _variable(self, x: Variable, spot: Spot, argument: bool) -> Record:
        table = self.table
        index = table.indices.get(id(x))
        if index is not None:
            return self._again(x, index, spot)
        index = table.add(x)
        path, prefix, base = spot
        if isinstance(prefix, prefixes.PrefixMapping):
            prefix = self._resolve(x, spot)
            spot = Spot(path, prefix, base)
        table.spots.append(spot)
        self.entries.append(Entry(path, x, prefix))
        if self.on_variable is not None:
            self.on_variable(x, prefix)
        metadata = metadata_key(x) if x._metadata else NO_METADATA
        raw = x._slot
        treedef = None if kinds.is_array_type(type(raw)) else treedef_of(raw)
        return VariableDef(index, type(x), metadata, treedef)

    def _object(self, x: Pytree, spot: Spot, argument: bool) -> Record:
        index = self.table.indices.get(id(x))
        if index is not None:
            return self._again(x, index, spot)
        if spot.base < 0:  # filters see paths below the outermost object
            spot = Spot(spot.path, spot.prefix, len(spot.path))
        index = self.table.add(x)
        self.table.spots.append(spot)
        marks = x._pytree_marks
        layout = layout_of(x)
        if layout is not None:
            keys, children = layout.keys, self._attributes(x, layout, spot)
        else:
            items = x._pytree_items()
            children = self._children(items, spot, marks)
            keys = tuple([key for key, _ in items])
        return NodeDef(index, type(x), keys, children, Static(marks) if marks else NONE)

    def _attributes(self, x: Pytree, layout: Layout, spot: Spot) -> tuple[Record, ...]:
        """Visits the attributes of an object that has nothing else."""
        own = attributes(x)
        records = layout.records(own)
        path, prefix, base = spot
        keys = None if prefixes.is_leaf(prefix) else layout.keys
        for i, name, kind, marked in layout.open:
            child = own[name]
            if kind is None:
                kind = kind_of(child)
            below = Spot((*path, name), prefix, base)
            if keys is not None and (marked or kind is not Kind.STATIC):
                below = self._below(spot, name, keys)
            visit = _VISITS[kind]
            records[i] = (
                self._marked(child, kind, below) if marked else visit(self, child, below, False)
            )
        return tuple(records)

    def _node(self, x: Any, spot: Spot, argument: bool) -> Record:
        index = self.table.indices.get(id(x))
        if index is not None:
            return self._again(x, index, spot)
        if argument and type(x) in (list, dict):
            return self._argument_container(x, spot)
        if argument and not jtu.all_leaves((x,)):
            return self._foreign(x, spot, argument)  # JAX knows its order and its factory
        if hides_all(x, Kind.NODE):
            raise hidden_data_error(x, spot.path, self.root)
        handler = node_type(type(x))
        items, extra = handler.items(x), handler.extra(x)
        index = self.table.add(x)
        self.table.spots.append(spot)
        order: Any = None
        if items and isinstance(x, dict):
            keys = [key for key, _ in items]
            if sorted_keys(keys) != keys:  # code may depend on the order of insertion
                order = tuple(keys)
                items.sort(key=lambda item: sort_key(item[0]))
        has_items = isinstance(x, (list, dict, collections.deque))
        children = self._children(items, spot, {}, argument and has_items)
        keys = tuple([key for key, _ in items])
        return NodeDef(index, type(x), keys, children, _extra(order, extra))

    def _argument_container(self, x: Any, spot: Spot) -> Record:
        items: Any = enumerate(x) if type(x) is list else x.items()
        if type(x) is dict:
            items = sorted(items, key=lambda item: sort_key(item[0]))
        pairs = [*items]
        children = self._children(pairs, spot, {}, True)
        return ValueDef(type(x), tuple([key for key, _ in pairs]), children)

    def _value(self, x: Any, spot: Spot, argument: bool) -> Record:
        if type(x) is tuple and not argument and are_atoms(x):
            return boxed(x)
        keys, parts = value_type(type(x)).split(x)
        return self._parts(x, type(x), keys, parts, spot, argument)

    def _foreign(self, x: Any, spot: Spot, argument: bool) -> Record:
        if type(x) is Static:
            return x
        if not argument:
            self.foreign.append(x)
        keys, parts, treedef = kinds.split_foreign(x)
        return self._parts(x, treedef, keys, parts, spot, argument)

    def _parts(
        self, x: Any, how: Any, keys: tuple, parts: tuple, spot: Spot, argument: bool
    ) -> Record:
        pairs = zip(keys, parts, strict=True)
        children = tuple([self.visit(c, self._below(spot, k, keys), argument) for k, c in pairs])
        if not argument and all(type(child) is Static for child in children):
            return Static(x)
        return ValueDef(how, keys, children)

    def _bound(self, x: Any, spot: Spot, argument: bool) -> Record:
        record, is_complete = self._bound_to(x, lambda index, obj: Ref(index))
        if is_complete:
            return record
        late = Late(record)
        self._late.append((late, x))
        return late

    def _bound_to(self, x: Any, refer: Callable[[int, Any], Record]) -> tuple[Record, bool]:
        """Returns what a method or partial is, and whether all its objects have an index.

        It belongs to the graph, but the graph does not consist of what it is bound to: what is
        met nowhere else is static.
        """
        keys, parts = value_type(type(x)).split(x)
        children: list[Record] = []
        is_complete = True
        for part in parts:
            kind = kind_of(part)
            index = self.table.indices.get(id(part)) if kind is Kind.OBJECT else None
            if kind is Kind.BOUND:
                child, inside = self._bound_to(part, refer)
                is_complete = is_complete and inside
            else:
                child = boxed(part) if index is None else refer(index, part)
                is_complete = is_complete and (kind is not Kind.OBJECT or index is not None)
            children.append(child)
        if all(type(child) is Static for child in children):
            return boxed(x), is_complete
        return ValueDef(type(x), keys, tuple(children)), is_complete

    def _settle_late(self) -> None:
        """Lets methods and partials refer to objects that were met after them."""
        late = self._late
        self._late = []
        for place, x in late:
            place.record, is_complete = self._bound_to(x, lambda index, o: LateRef(index, type(o)))
            if not is_complete:  # another root may bring the object
                self._late.append((place, x))

    def _children(
        self,
        items: list[tuple[Any, Any]],
        spot: Spot,
        marks: dict[Any, bool],
        argument: bool = False,
    ) -> tuple[Record, ...]:
        children: list[Record] = []
        keys: tuple[Any, ...] | None = None
        for key, child in items:
            mark = marks.get(key) if marks else None
            kind = kind_of(child)
            if child is None:
                children.append(NONE)
                continue
            is_static = kind is Kind.STATIC and mark is None and not argument
            if mark is False or (is_static and not kinds.is_closed(child)):
                children.append(self._box(child))
                continue
            if keys is None and not prefixes.is_leaf(spot.prefix):
                keys = tuple([key for key, _ in items])
            below = self._below(spot, key, None if is_static else keys)
            if mark:
                children.append(self._marked(child, kind, below))
            else:
                is_argument = argument and type(key) is not Own
                children.append(_VISITS[kind](self, child, below, is_argument))
        return tuple(children)

    def visit_changed(
        self, node: Any, items: list[tuple[Any, Any]], kept: list[bool], spot: Spot
    ) -> tuple[Record, ...]:
        """Visits the items of an object that has an index, those that it kept excepted."""
        marks = node._pytree_marks if isinstance(node, Pytree) else {}
        return tuple(
            Old(key) if same else self._children([(key, child)], spot, marks)[0]
            for (key, child), same in zip(items, kept, strict=True)
        )

    def _below(self, spot: Spot, key: Any, keys: tuple[Any, ...] | None) -> Spot:
        prefix = spot.prefix
        if keys is not None and not prefixes.is_leaf(prefix):
            prefix = prefixes.descend(prefix, key, keys, spot.path)
        return Spot((*spot.path, key), prefix, spot.base)

    def _again(self, x: Any, index: int, spot: Spot) -> Record:
        """Handles an object that has an index: shares it, or says why that may not be."""
        if not self.share and kinds.holds_data(x):
            first = self.table.spots[index].path if index < len(self.table.spots) else ()
            raise SharedReferenceError(
                f"the same {type(x).__name__} is reached at {format_path(first, self.root)} and at "
                f"{format_path(spot.path, self.root)}: shared references need `graph=True`"
            )
        if self.check_aliases:
            self._met_again.append((x, index, spot))
        return Ref(index)

    def _check_prefix(self, x: Any, index: int, spot: Spot) -> None:
        """Raises if something met before is met under another prefix now (aliases agree)."""
        if index >= len(self.table.spots):
            return
        first = self.table.spots[index]
        if not isinstance(x, Variable):
            if first.prefix is spot.prefix or (index, id(spot.prefix)) in self._checked:
                return
            self._checked.add((index, id(spot.prefix)))
            if spot.base < 0:
                spot = Spot(spot.path, spot.prefix, len(spot.path))
            items = items_of(x)
            keys = tuple(key for key, _ in items)
            for key, child in items:
                below = self.table.indices.get(id(child))
                if below is not None:
                    self._check_prefix(child, below, self._below(spot, key, keys))
            return
        prefix = self._resolve(x, spot)
        if first.prefix is not prefix and first.prefix != prefix:
            raise AliasError(
                f"the same {type(x).__name__} is reached under two prefixes: "
                f"{format_path(first.path, self.root)} has {first.prefix!r}, "
                f"{format_path(spot.path, self.root)} has {prefix!r}. Give both the same one, or "
                "pass a copy: `nnx.clone(model)`"
            )


_VISITS: dict[Kind, Callable[[Flattener, Any, Spot, bool], Record]] = {
    Kind.STATIC: Flattener._static,
    Kind.ARRAY: Flattener._array,
    Kind.VARIABLE: Flattener._variable,
    Kind.OBJECT: Flattener._object,
    Kind.NODE: Flattener._node,
    Kind.VALUE: Flattener._value,
    Kind.FOREIGN: Flattener._foreign,
    Kind.BOUND: Flattener._bound,
    Kind.INSTANCE: Flattener._instance,
}


class Builder:
    """Makes the values that records describe.

    Args:
      variable: makes the Variable of a `VariableDef`.
      array: returns the next array.
      objects: what exists already, by index; what is made is added.
      given: returns the array or static value that came in at a position.
      on_build: returns what to use in place of each object made: `(index, object, items)`.
    """

    def __init__(
        self,
        variable: Callable[[VariableDef], Variable],
        array: Callable[[], Any],
        objects: dict[int, Any] | None = None,
        *,
        given: Callable[[OldLeaf | OldStatic], Any] | None = None,
        on_build: Callable[[int, Any, Any], Any] | None = None,
    ):
        self.variable = variable
        self.array = array
        self.objects = {} if objects is None else objects
        self.given = given
        self.on_build = on_build
        self._early: dict[int, Any] = {}  # made before their turn, and still blank

    def build(self, record: Record, old: dict[Any, Any] | None = None) -> Any:
        """Makes one value; `old` is what the object that will hold it has now."""
        return _BUILDS[type(record)](self, record, old)

    def _static(self, record: Static, old: Any) -> Any:
        return record.value

    def _array(self, record: ArrayDef, old: Any) -> Any:
        return self.array()

    def _ref(self, record: Ref, old: Any) -> Any:
        return self.objects[record.index]

    def _late(self, record: Late, old: Any) -> Any:
        return self.build(record.record, old)

    def _late_ref(self, record: LateRef, old: Any) -> Any:
        index = record.index
        if index not in self.objects:
            self.objects[index] = self._early[index] = blank(record.type)
        return self.objects[index]

    def _old(self, record: Old, old: Any) -> Any:
        return old[record.key]

    def _given(self, record: OldLeaf | OldStatic, old: Any) -> Any:
        return self.given(record)  # type: ignore[misc]

    def _variable(self, record: VariableDef, old: Any) -> Variable:
        variable = self.objects[record.index] = self.variable(record)
        return variable

    def _node(self, record: NodeDef, old: Any) -> Any:
        # The object is known before its children are made: they may refer to it.
        new = self._early.pop(record.index, None)
        if new is None:
            new = self.objects[record.index] = blank_node(record.type)
        build = self.build
        pairs = zip(record.keys, record.children, strict=True)
        items = [(k, build(child, old)) for k, child in pairs]
        fill_node(new, items, record.extra)
        if self.on_build is not None:
            new = self.objects[record.index] = self.on_build(record.index, new, items)
        return new

    def _value(self, record: ValueDef, old: Any) -> Any:
        return join_value(record, tuple([self.build(child, old) for child in record.children]))


def join_value(record: ValueDef, parts: tuple[Any, ...]) -> Any:
    """Puts the parts of an immutable value or foreign pytree together."""
    if not isinstance(record.how, type):
        return jtu.tree_unflatten(record.how, parts)
    if record.how in (list, dict):  # an argument, which has no identity
        return make_node(record.how, list(zip(record.keys, parts, strict=True)), None)
    return value_type(record.how).join(record.how, record.keys, parts)


_BUILDS: dict[type, Callable[[Builder, Any, Any], Any]] = {
    Static: Builder._static,
    ArrayDef: Builder._array,
    Ref: Builder._ref,
    Old: Builder._old,
    OldLeaf: Builder._given,
    OldStatic: Builder._given,
    Late: Builder._late,
    LateRef: Builder._late_ref,
    VariableDef: Builder._variable,
    NodeDef: Builder._node,
    ValueDef: Builder._value,
}


def blank_node(cls: type) -> Any:
    """Makes an object or container with nothing in it."""
    return blank(cls) if issubclass(cls, Pytree) else instances.blank(cls)


def fill_node(node: Any, items: list[tuple[Any, Any]], extra: Static) -> None:
    """Replaces everything in an object or container."""
    if isinstance(node, Pytree):
        set_marks(node, extra.value or {})
        node._pytree_replace(items)
        return
    order, inner = extra.value or (None, None)
    if order is not None:
        values = dict(items)
        items = [(key, values[key]) for key in order]
    node_type(type(node)).fill(node, items, inner)


def items_of(node: Any) -> list[tuple[Any, Any]]:
    """Returns what is directly in an object or container, in its own order."""
    if isinstance(node, Pytree):
        return node._pytree_items()
    return node_type(type(node)).items(node)


def extra_of(node: Any) -> Static:
    """Returns what a node is made from besides what is in it; the order of a dict in any case."""
    if isinstance(node, Pytree):
        marks = node._pytree_marks
        return Static(marks) if marks else NONE
    handler = node_type(type(node))
    order = tuple([key for key, _ in handler.items(node)]) if isinstance(node, dict) else None
    return _extra(order, handler.extra(node))


def _extra(order: tuple[Any, ...] | None, inner: Any) -> Static:
    return NONE if order is None and inner is None else Static((order, inner))


def make_variable(record: VariableDef, raw: Any) -> Variable:
    """Makes the Variable of a record around a raw value."""
    return make(record.type, raw, dict(record.metadata.value))
