"""The lift: making a JAX transformation accept objects.

A *call* takes the caller's objects apart into a *spec* (static: their structure, and which group
each leaf belongs to) and *groups* (lists of arrays, one list per prefix). What JAX transforms is a
pure function of spec and groups: it rebuilds the objects, runs the user's function and returns an
*exit*: the new values of what was written (again in groups) and, statically, what they are for.
Back outside, the exit is written onto the caller's own objects.

The inner objects carry the indices of the outer ones, so an index means the same object on both
sides and nothing is ever mapped.
"""

# A record's `index` hides the method of that name that tuples have.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.tree_util as jtu

from weft._core import config, trace
from weft._core.arguments import argument_paths, by_position
from weft._core.errors import PrefixError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._graph import prefix as prefixes
from weft._graph.records import (
    ArrayDef,
    OldLeaf,
    Record,
    ValueDef,
    VariableDef,
    iter_records,
)
from weft._graph.walk import (
    Builder,
    Flattener,
    Spot,
    Table,
    extra_of,
    items_of,
    make_variable,
    treedef_of,
)
from weft._graph.write_back import write_back
from weft._lift.jit.spec import Call, Changed, Exit, Groups, Spec, Written
from weft._object import kinds
from weft._object.kinds import Kind, kind_of
from weft._object.pytree import Pytree
from weft._variable.part import check_apart
from weft._variable.variable import Variable

Items = frozenset[tuple[int, Any]]
"""Items of objects: the object's index and the key."""


class Mode(NamedTuple):
    """Two options of every transform.

    Attributes:
      share: whether objects may be met twice (`graph=`).
      structure: whether structure is written back, not only Variables (`graph_updates=`).
    """

    share: bool
    structure: bool

    @property
    def gives_states(self) -> bool:
        """Whether tangents of objects are States; else they are objects of the same type."""
        return self.share and self.structure


def mode_of(graph: bool | None, graph_updates: bool | None) -> Mode:
    """Returns the mode of two options, None standing for the setting."""
    share = config.set_graph_mode.get() if graph is None else graph
    structure = config.set_graph_updates.get() if graph_updates is None else graph_updates
    return Mode(share, structure)


class AxisNames(Protocol):
    """Keeps the axis names in Variables' metadata right where a transform maps an axis."""

    def going_in(self, variable: Variable, axis: Any) -> None: ...
    def coming_out(self, variable: Variable, axis: Any) -> None: ...


class Inside(NamedTuple):
    """The objects of a call as its function sees them, and how they were before it ran."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    objects: list[Any]
    leaves: list[Any]
    before: dict[int, Any]
    arrays: list[Any]
    spots: list[Spot]


def raw_leaves(value: Any) -> list[Any]:
    """Returns the arrays of an entry's value."""
    if not isinstance(value, Variable):
        return [value]
    raw = value._raw
    return [raw] if isinstance(raw, jax.Array) else jtu.tree_leaves(raw)


def unbind(f: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Turns a bound method of an object, or a callable object, into a function and its object."""
    if isinstance(f, types.MethodType) and isinstance(f.__self__, Pytree):
        return f.__func__, (f.__self__,)
    if isinstance(f, Pytree):
        if not callable(f):
            name = type(f).__name__
            raise TypeError(
                f"a {name} is not callable: it has no `__call__`. Give it one, or pass one of its "
                f"methods: `model.method` of a `model` that is a {name}"
            )
        return type(f).__call__, (f,)
    return f, ()


Places = tuple[tuple[int, ...], ...]


def unbind_all(
    functions: Iterable[Callable[..., Any]],
) -> tuple[tuple[Callable[..., Any], ...], tuple[Any, ...], Places]:
    """Unbinds several functions of one call.

    Returns:
      The functions, their objects, each once, and for each function which of these is its own.
    """
    pairs = [unbind(f) for f in functions]
    holders = {id(obj): obj for _, bound in pairs for obj in bound}
    order = list(holders)
    places = tuple(tuple(order.index(id(obj)) for obj in bound) for _, bound in pairs)
    return tuple(f for f, _ in pairs), tuple(holders.values()), places


def name_of(f: Any) -> str:
    """Returns what to call a function in an error, of a partial what it binds."""
    while isinstance(f, functools.partial):
        f = f.func
    return getattr(f, "__qualname__", None) or type(f).__name__


class Lift:
    """A function, the prefixes of its arguments and of what it returns, and the mode.

    Args:
      f: the user's function.
      transform: the transform's name, for errors.
      mode: see `Mode`.
      in_prefix: prefix of the positional arguments: one per argument, or one for all.
      out_prefix: prefix of what is returned.
      kw_prefix: prefix of all keyword arguments.
      in_keys: the prefixes that may occur going in, one group each; by default those in the
        prefixes themselves.
      out_keys: likewise, coming out.
      in_key: chooses the group of an entry that goes in; by default its prefix.
      check_outputs: whether an argument that is returned must have the same prefix there.
      axis_names: told of each Variable's axis on its way in and out.
      bound: how many arguments of a call come before those that the prefixes count: the object
        of a bound method.
      bound_prefix: the prefix of these.
      skip: how many parameters of `f`, after the bound ones, are no arguments of a call; negative
        if arguments come first that `f` does not have.

    Attributes:
      given: what the user transforms: the function, or the method that it is of.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        transform: str,
        mode: Mode,
        *,
        in_prefix: Any = None,
        out_prefix: Any = None,
        kw_prefix: Any = None,
        in_keys: list[Any] | None = None,
        out_keys: list[Any] | None = None,
        in_key: Callable[[Path, Any], Any] | None = None,
        check_outputs: bool = False,
        axis_names: AxisNames | None = None,
        bound: int = 0,
        bound_prefix: Any = None,
        skip: int = 0,
    ):
        self.f = self.given = f
        self.transform = transform
        self.name = name_of(f)
        self.mode = mode
        self.in_prefix = in_prefix
        self.out_prefix = out_prefix
        self.kw_prefix = kw_prefix
        keys = prefixes.distinct(in_prefix, kw_prefix, *[bound_prefix][:bound], out_prefix)
        self.in_keys = keys if in_keys is None else in_keys
        self.out_keys = keys if out_keys is None else out_keys
        self.in_key = in_key
        self.check_outputs = check_outputs
        self.axis_names = axis_names
        self.bound = bound
        self.bound_prefix = bound_prefix
        self.skip = skip

    # -- outside, before
    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Call:
        """Takes the arguments of a call apart."""
        args, kwargs = self.place(args, kwargs or {})
        flattener = Flattener(share=self.mode.share, arguments=True)
        paths = argument_paths(self.f, len(args), self.skip, self.bound)
        flatten = flattener.flatten
        positional = [
            flatten(arg, path, prefix)
            for arg, path, prefix in zip(args, paths, self._argument_prefixes(args), strict=True)
        ]
        names = tuple(sorted(kwargs)) if kwargs else ()
        keywords = [flatten(kwargs[name], (name,), self.kw_prefix) for name in names]  # type: ignore[index]
        record = ValueDef(tuple, (*range(len(args)), *names), (*positional, *keywords))
        entries, table = flattener.entries, flattener.table
        check_apart((entry.path, entry.value) for entry in entries)
        groups: Groups = [[] for _ in self.in_keys]
        grouping = []
        for path, value, prefix in entries:
            key = prefix if self.in_key is None else self.in_key(path, prefix)
            self._check_leaf(path, prefix)
            group = prefixes.position(key, self.in_keys)
            grouping.append(group)
            groups[group].extend(raw_leaves(value))
        arrays = [entry.value for entry in entries if not isinstance(entry.value, Variable)]
        spec = Spec(record, tuple(grouping), table.spots, entries)
        return Call(spec, groups, table.objects, arrays, entries)

    def place(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Puts keyword arguments where their prefixes are."""
        is_single = type(self.in_prefix) not in (tuple, list)
        number = None if is_single else self.bound + len(self.in_prefix)
        is_short = number is not None and number > len(args)
        if is_short or (kwargs and is_single and self.in_prefix is not self.kw_prefix):
            return by_position(self.f, args, kwargs, number)
        return args, kwargs

    def _argument_prefixes(self, args: tuple[Any, ...]) -> Iterable[Any]:
        prefix, bound = self.in_prefix, self.bound
        first = itertools.repeat(self.bound_prefix, bound)
        if type(prefix) not in (tuple, list):
            return itertools.chain(first, itertools.repeat(prefix, len(args) - bound))
        if len(prefix) != len(args) - bound:
            names = ", ".join(
                str(path[0])
                for path in argument_paths(self.f, len(args), self.skip, self.bound)[bound:]
            )
            raise PrefixError(
                f"nnx.{self.transform} of {self.name!r} was given {len(prefix)} prefixes for "
                f"{len(args) - bound} arguments:\n  arguments: ({names})\n  prefixes:  {prefix!r}\n"
                "Give one per positional argument, or a single one for all"
            )
        return itertools.chain(first, prefix)

    # -- inside
    def rebuild(self, spec: Spec, groups: Iterable[Iterable[Any]]) -> Inside:
        """Makes the objects of a call anew around the arrays in groups."""
        arrays_of = [iter(group) for group in groups]
        grouping = iter(spec.grouping)
        before: dict[int, Any] = {}
        arrays: list[Any] = []
        leaves: list[Any] = []

        def variable(record: VariableDef) -> Variable:
            made = make_variable(record, value_from(record.treedef, arrays_of[next(grouping)]))
            if self.axis_names is not None:
                self.axis_names.going_in(made, spec.spots[record.index].prefix)
            before[record.index] = (_leaves_of(made._raw), made._metadata)
            leaves.append(made)
            return made

        def array() -> Any:
            arrays.append(next(arrays_of[next(grouping)]))
            leaves.append(arrays[-1])
            return arrays[-1]

        def remember(index: int, node: Any, items: list[tuple[Any, Any]]) -> Any:
            noted = [(k, v, _inner_of(v)) for k, v in items]
            before[index] = noted, (type(node), extra_of(node))
            return node

        builder = Builder(variable, array, on_build=remember)
        args, kwargs = _arguments(spec.record, list(map(builder.build, spec.record.children)))
        objects = [builder.objects[i] for i in range(len(builder.objects))]
        return Inside(args, kwargs, objects, leaves, before, arrays, spec.spots)

    def run(self, inside: Inside, f: Callable[..., Any] | None = None) -> Any:
        """Runs the user's function on the inner objects."""
        with trace.running(self.transform, self.name, inside.objects, inside.spots):
            return (self.f if f is None else f)(*inside.args, **inside.kwargs)

    def collect(
        self, spec: Spec, inside: Inside, out: Any, also: Items = frozenset()
    ) -> tuple[Groups, Exit]:
        """Gathers what was written and what is returned.

        Args:
          spec: the call's.
          inside: its objects, after the function ran.
          out: what it returned.
          also: items of objects that come out even if nothing changed there.
        """
        table = Table(inside.objects)
        table.spots = list(spec.spots)
        names = self.axis_names
        flattener = Flattener(
            table,
            arguments=True,
            known_arrays={} if also else {id(x): i for i, x in enumerate(inside.arrays)},
            find_static=spec.find_static,
            check_aliases=self.check_outputs,
            on_variable=None if names is None else names.coming_out,
        )
        written: list[Written] = []
        entries: list[tuple[list[Any], Any]] = []
        for index, obj in enumerate(inside.objects):
            if not isinstance(obj, Variable):
                continue
            raw, metadata = inside.before[index]
            new_metadata = None
            if obj._metadata is not metadata:
                new_metadata = Static(obj._metadata)
                new_metadata = None if new_metadata == Static(metadata) else new_metadata
                if new_metadata is not None and names is not None:
                    names.coming_out(obj, table.spots[index].prefix)
                    new_metadata = Static(obj._metadata)
            if new_metadata is not None or not _same_leaves(raw, obj._raw):
                written.append(Written(index, treedef_of(obj._raw), new_metadata))
                entries.append((raw_leaves(obj), table.spots[index].prefix))
        returned = None if self.mode.structure else _objects_in(out)
        changed = () if returned == set() else self._changed(inside, flattener, also, returned)
        flattener.known_arrays = {}
        record = flattener.flatten(out, ("output",), self.out_prefix)
        places = [spec.spots[w.index].path for w in written]
        places.extend(entry.path for entry in flattener.entries)
        entries.extend((raw_leaves(e.value), e.prefix) for e in flattener.entries)
        groups: Groups = [[] for _ in self.out_keys]
        grouping = []
        for path, (leaves, prefix) in zip(places, entries, strict=True):
            self._check_leaf(path, prefix)
            group = prefixes.position(prefix, self.out_keys)
            grouping.append(group)
            groups[group].extend(leaves)
        return groups, Exit(tuple(written), changed, record, tuple(grouping))

    def _check_leaf(self, path: Path, prefix: Any) -> None:
        """Raises if a leaf has a prefix that is meant for a container."""
        if not prefixes.is_leaf(prefix):
            raise PrefixError(
                f"nnx.{self.transform} of {self.name!r}: {format_path(path)} is a single array, "
                f"but its prefix is the {type(prefix).__name__} {prefix!r}: give one entry for it"
            )

    def _changed(
        self, inside: Inside, flattener: Flattener, also: Items, only: set[int] | None
    ) -> tuple[Changed, ...]:
        """Returns what is in objects and containers now, where that is not what was there before.

        Args:
          inside: the objects of the call.
          flattener: visits what is new.
          also: items that come out in any case.
          only: the objects to look at, by `id`; None for all.
        """
        changed: list[Changed] = []
        for index, obj in enumerate(inside.objects):
            if isinstance(obj, Variable) or (only is not None and id(obj) not in only):
                continue
            old, old_extra = inside.before[index]
            items, extra = items_of(obj), (type(obj), extra_of(obj))
            unchanged = {k: value for k, value, inner in old if _same(inner, _inner_of(value))}
            kept = [k in unchanged and _is_kept(unchanged[k], value) for k, value in items]
            if also:
                kept = [
                    same and (index, key) not in also
                    for (key, _), same in zip(items, kept, strict=True)
                ]
            if all(kept) and len(items) == len(old) and extra == old_extra:
                continue
            spot = flattener.table.spots[index]
            keys = tuple(key for key, _ in items)
            children = flattener.visit_changed(obj, items, kept, spot)
            changed.append(Changed(index, type(obj), keys, children, extra[1]))
        return tuple(changed)

    def pure(self, spec: Spec, *groups: list[Any]) -> tuple[Groups, Exit]:
        """The function that JAX transforms."""
        inside = self.rebuild(spec, groups)
        return self.collect(spec, inside, self.run(inside))

    # -- outside, after
    def leave(self, call: Call, groups: Iterable[Iterable[Any]], exit: Exit) -> Any:
        """Writes an exit onto the caller's objects and returns what the function returned."""
        arrays_of = [iter(group) for group in groups]
        grouping = iter(exit.grouping)
        writes = [
            (call.objects[w.index], value_from(w.treedef, arrays_of[next(grouping)]), w.metadata)
            for w in exit.written
        ]
        builder = Builder(
            lambda record: make_variable(
                record, value_from(record.treedef, arrays_of[next(grouping)])
            ),
            lambda: next(arrays_of[next(grouping)]),
            dict(enumerate(call.objects)),
            given=lambda record: (
                call.arrays if isinstance(record, OldLeaf) else call.spec.statics
            )[record.position],
        )
        refills = []
        for change in exit.changed:
            old = dict(items_of(call.objects[change.index]))
            items = [
                (key, builder.build(child, old))
                for key, child in zip(change.keys, change.children, strict=True)
            ]
            refills.append((call.objects[change.index], items, change))
        out = builder.build(exit.out)
        write_back(writes, refills)
        return out


def _objects_in(value: Any) -> set[int]:
    """Returns the objects and containers in a value by `id`, Variables excepted."""
    if value is None or kinds.is_array_type(type(value)):
        return set()
    flattener = Flattener(arguments=True, check_aliases=False)
    flattener.flatten(value)
    return {id(obj) for obj in flattener.table.objects if not isinstance(obj, Variable)}


def _arguments(record: ValueDef, built: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call from its record and the parts built from it."""
    if record.how is not tuple:  # the arguments' treedef, as JAX sees them
        args, kwargs = jtu.tree_unflatten(record.how, built)
        return tuple(map(_without_box, args)), {k: _without_box(x) for k, x in kwargs.items()}
    names = [key for key in record.keys if isinstance(key, str)]
    number = len(built) - len(names)
    return tuple(built[:number]), dict(zip(names, built[number:], strict=True))


def outcome(spec: Spec, exit: Exit) -> Iterator[tuple[Path, Any]]:
    """Yields path and treedef of each value that comes out of a call, in the exit's order."""
    for written in exit.written:
        yield spec.spots[written.index].path, written.treedef
    for path, record in records_out(spec, exit):
        if isinstance(record, (ArrayDef, VariableDef)):
            yield path, getattr(record, "treedef", None)


def records_out(spec: Spec, exit: Exit) -> Iterator[tuple[Path, Record]]:
    """Yields path and record of all that comes out of a call besides what it wrote."""
    for change in exit.changed:
        for key, child in zip(change.keys, change.children, strict=True):
            yield from iter_records(child, (*spec.spots[change.index].path, key))
    yield from iter_records(exit.out, ("output",))


def _without_box(x: Any) -> Any:
    return x.value if type(x) is Static else x


def value_from(treedef: Any, leaves: Iterator[Any]) -> Any:
    """Takes the leaves of one value off an iterator."""
    if treedef is None:
        return next(leaves)
    return treedef.unflatten(list(itertools.islice(leaves, treedef.num_leaves)))


def put_together(record: Record, leaves: Iterator[Any]) -> Any:
    """Makes what a record describes of leaves that are taken off an iterator."""
    variable = lambda record: make_variable(record, value_from(record.treedef, leaves))  # noqa: E731
    return Builder(variable, lambda: next(leaves)).build(record)


def _leaves_of(raw: Any) -> Any:
    """Notes a Variable's value; a container may change without becoming another object."""
    return raw if isinstance(raw, jax.Array) else jtu.tree_flatten(raw)


def _same_leaves(before: Any, after: Any) -> bool:
    if isinstance(before, jax.Array) or isinstance(after, jax.Array):
        return before is after
    leaves, treedef = jtu.tree_flatten(after)
    return treedef == before[1] and _same(leaves, before[0])


_PLAIN = frozenset({bool, int, float, complex, str, bytes, frozenset})


def _is_kept(before: Any, after: Any) -> bool:
    if before is after:
        return True
    return type(after) in _PLAIN and Static(before) == Static(after)


def _inner_of(value: Any) -> list[Any]:
    """Notes what is in tuples and foreign pytrees, which may change without becoming others."""
    kind = kind_of(value)
    if kind is Kind.FOREIGN:
        _, parts, treedef = kinds.split_foreign(value)
        inner: list[Any] = [treedef]
    elif kind is Kind.VALUE:
        parts, inner = kinds.children_of(value, kind), []
    elif kind is Kind.INSTANCE:  # static until it holds data
        return [kinds.holds_data(value)]
    else:
        return []
    for part in parts:
        inner.extend(_inner_of(part) or (part,))
    return inner


def _same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(
        a is b or (isinstance(a, jtu.PyTreeDef) and a == b)
        for a, b in zip(before, after, strict=True)
    )
