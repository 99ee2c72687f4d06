"""States: the Variables of a graph as a nested mapping by path.

A `State` is a nested mapping whose leaves are Variables (or arrays that no Variable holds); a
`FlatState` is the same as a sequence of (path, leaf) pairs. Both keep their keys sorted, numbers
before names, and both are JAX pytrees. A *pure dict* is a nested dict of plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, overload

import jax.tree_util as jtu

from weft._core.errors import StructureError, surface
from weft._core.exported import register_export
from weft._core.filters import Filter, filter_flat, split_flat
from weft._core.makeup import compare_as_mapping
from weft._core.path import ByPath, Path, format_path, path_sort_key, sorted_keys
from weft._core.types import Representable
from weft._variable import watch as watching
from weft._variable.operators import same_tree
from weft._variable.values import own_value
from weft._variable.variable import A, Variable, pure_value


def _raw(x: Any) -> Any:
    return x._mapping if isinstance(x, State) else x


class State(Representable, MutableMapping[Any, Any]):
    """Variables by path: a nested mapping, a JAX pytree, with items also as attributes.

    Args:
      mapping: a mapping, nested or not, or an iterable of (key, value) pairs.

    Example:
      >>> import weft as nnx
      >>> state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> list(state), state.kernel.shape
      (['bias', 'kernel'], (2, 3))
    """

    # All views into one State share its watches: `watches[0]` says whether somebody holds the
    # dicts themselves, and may change them unseen.
    __slots__ = ("__weakref__", "_mapping", "_watches")
    _mapping: dict[Any, Any]
    _watches: list[Any]

    def __init__(self, mapping: Mapping | Iterable[tuple[Any, Any]], /, *, _copy: bool = True):
        items = dict(mapping) if _copy or not isinstance(mapping, dict) else mapping
        items = {k: _own_levels(v) for k, v in items.items()} if _copy else items
        object.__setattr__(self, "_mapping", items)
        object.__setattr__(self, "_watches", [])

    @property
    def raw_mapping(self) -> dict[Any, Any]:
        """The nested dict behind the State."""
        self._changed()
        if not self._watches:
            self._watches.append(OPEN)
        return self._mapping

    def _changed(self) -> None:
        watches = self._watches
        if watches and watches[0] is not OPEN:
            watching.void(watches)

    def __getitem__(self, key: Any) -> Any:
        value = self._mapping[key]
        return _view(value, self._watches) if type(value) is dict else value

    def __setitem__(self, key: Any, value: Any) -> None:
        self._mapping[key] = _own_levels(value)
        self._changed()

    def __delitem__(self, key: Any) -> None:
        del self._mapping[key]
        self._changed()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in State.__slots__:
            raise AttributeError(name)
        surface(self, name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"the State has no key {name!r}; it has {sorted_keys(self._mapping)}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted_keys(self._mapping))

    def __len__(self) -> int:
        return len(self._mapping)

    def __contains__(self, key: object) -> bool:
        return key in self._mapping

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Mapping) and not isinstance(other, State):
            other = State(other)
        return isinstance(other, State) and same_tree(self, other)

    __hash__ = None  # type: ignore[assignment]  # mutable, like a dict

    def __or__(self, other: State) -> State:
        return merge_state(self, other)

    def __sub__(self, other: State) -> State:
        return diff(self, other)

    def map(self, f: Callable[[Path, Any], Any]) -> State:
        """Returns a State of `f(path, leaf)`."""
        return map_state(f, self)

    def flat_state(self) -> FlatState:
        """Returns the leaves as a `FlatState`."""
        return to_flat_state(self)

    @classmethod
    def from_flat_path(cls, flat_state: ByPath, /) -> State:
        """Builds a State from paths and leaves."""
        return from_flat_state(flat_state, cls=cls)

    def to_pure_dict(self, extract_fn: Callable[[Any], Any] | None = None) -> dict[Any, Any]:
        """Returns a nested dict of plain values; see `to_pure_dict`."""
        return to_pure_dict(self, extract_fn)

    def replace_by_pure_dict(
        self, pure_dict: Mapping, replace_fn: Callable[[Any, Any], Any] | None = None
    ) -> None:
        """Writes plain values into the leaves; see `replace_by_pure_dict`."""
        replace_by_pure_dict(self, pure_dict, replace_fn)

    @overload
    def split(self, first: Filter, /) -> State: ...
    @overload
    def split(self, a: Filter, b: Filter, /, *filters: Filter) -> tuple[State, ...]: ...
    def split(self, first: Filter, /, *filters: Filter) -> Any:
        """Splits the leaves among filters; see `split_state`."""
        return split_state(self, first, *filters)

    @overload
    def filter(self, first: Filter, /) -> State: ...
    @overload
    def filter(self, a: Filter, b: Filter, /, *filters: Filter) -> tuple[State, ...]: ...
    def filter(self, first: Filter, /, *filters: Filter) -> Any:
        """Selects leaves by filters; see `filter_state`."""
        return filter_state(self, first, *filters)

    @staticmethod
    def merge(state: State, /, *states: State) -> State:
        """Joins States; see `merge_state`."""
        return merge_state(state, *states)

    def __getstate__(self) -> dict[str, Any]:
        return {"mapping": self._mapping}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "_mapping", state["mapping"])
        object.__setattr__(self, "_watches", [])

    def __reduce__(self) -> Any:
        return (type(self), (self._mapping,))

    def __nnx_repr__(self) -> Iterator[Any]:
        from weft._core.repr import Attr, Object

        yield Object("State", "({", "})", ": ")
        for key in sorted_keys(self._mapping):
            yield Attr(repr(key), self[key], path_key=key)


compare_as_mapping(State, lambda x: x._mapping)  # Variables in it equal only themselves


OPEN = object()


def _view(mapping: dict[Any, Any], watches: list[Any]) -> State:
    """Wraps a nested dict as a State without copying, so that writes reach it."""
    state = object.__new__(State)
    object.__setattr__(state, "_mapping", mapping)
    object.__setattr__(state, "_watches", watches)
    return state


def _own_levels(value: Any) -> Any:
    """Copies the nested dicts of a value, such that no other State or caller changes them."""
    value = _raw(value)
    if type(value) is dict:
        return {key: _own_levels(child) for key, child in value.items()}
    return value


def nested_dict(state: Any) -> Any:
    """Returns the nested dict behind a State, to be read only; anything else as it is."""
    return state._mapping if type(state) is State else state


def watch_state(state: State, watch: watching.Watch) -> bool:
    """Sets a watch on a State; returns whether all changes will be seen."""
    if state._watches and state._watches[0] is OPEN:
        return False
    watching.add(state._watches, watch)
    return True


def flatten_state(state: State) -> tuple[list[Any], tuple[Any, ...]]:
    """Returns what JAX sees of a State: the children and their keys."""
    keys = tuple(sorted_keys(state._mapping))
    return [state[key] for key in keys], keys


def flatten_state_with_keys(state: State) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    """Returns the same with a key of JAX beside each child."""
    children, keys = flatten_state(state)
    return [(jtu.DictKey(k), c) for k, c in zip(keys, children, strict=True)], keys


def unflatten_state(keys: tuple[Any, ...], children: Iterable[Any]) -> State:
    """Makes a State of keys and children."""
    return _view({k: _raw(c) for k, c in zip(keys, children, strict=True)}, [])


jtu.register_pytree_with_keys(State, flatten_state_with_keys, unflatten_state, flatten_state)
register_export(State, lambda keys: keys, unflatten_state)


class FlatState(Sequence[tuple[Path, Any]]):
    """Leaves of a State as a sorted sequence of (path, leaf) pairs; a JAX pytree.

    Args:
      items: (path, leaf) pairs.
      sort: whether to sort them by path.

    Example:
      >>> import weft as nnx
      >>> flat = nnx.to_flat_state(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
      >>> flat.paths
      (('bias',), ('kernel',))
    """

    __slots__ = ("_leaves", "_paths")

    def __init__(self, items: Iterable[tuple[Path, Any]], /, *, sort: bool = True):
        pairs = list(items)
        if sort:
            pairs.sort(key=lambda pair: path_sort_key(pair[0]))
        self._paths = tuple(path for path, _ in pairs)
        self._leaves = [leaf for _, leaf in pairs]

    @staticmethod
    def from_sorted_keys_values(keys: Iterable[Path], values: Iterable[Any], /) -> FlatState:
        """Builds a FlatState from paths that are sorted already and their leaves."""
        return FlatState(zip(keys, values, strict=True), sort=False)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths."""
        return self._paths

    @property
    def leaves(self) -> list[Any]:
        """The leaves, in the order of the paths."""
        return self._leaves

    @overload
    def __getitem__(self, index: int) -> tuple[Path, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> FlatState: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return FlatState(list(self)[index], sort=False)
        return self._paths[index], self._leaves[index]

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[tuple[Path, Any]]:
        return zip(self._paths, self._leaves, strict=True)

    def to_nested_state(self) -> State:
        """Returns the leaves as a nested State."""
        return from_flat_state(self)

    @overload
    def split(self, first: Filter, /) -> FlatState: ...
    @overload
    def split(self, a: Filter, b: Filter, /, *filters: Filter) -> tuple[FlatState, ...]: ...
    def split(self, first: Filter, /, *filters: Filter) -> Any:
        """Splits the leaves among filters, exhaustively."""
        return _one_or_all([FlatState(g, sort=False) for g in split_flat(self, (first, *filters))])

    @overload
    def filter(self, first: Filter, /) -> FlatState: ...
    @overload
    def filter(self, a: Filter, b: Filter, /, *filters: Filter) -> tuple[FlatState, ...]: ...
    def filter(self, first: Filter, /, *filters: Filter) -> Any:
        """Selects leaves by filters."""
        return _one_or_all([FlatState(g, sort=False) for g in filter_flat(self, (first, *filters))])

    @staticmethod
    def merge(flat_state: FlatState, /, *flat_states: FlatState) -> FlatState:
        """Joins FlatStates; later ones win."""
        merged = dict(flat_state)
        for other in flat_states:
            merged.update(other)
        return FlatState(merged.items())

    def __repr__(self) -> str:
        inside = "".join(f"  {path!r}: {leaf!r},\n" for path, leaf in self)
        return f"FlatState([\n{inside}])" if inside else "FlatState([])"


jtu.register_pytree_with_keys(
    FlatState,
    lambda f: ([(jtu.DictKey(p), leaf) for p, leaf in f], f.paths),
    lambda paths, leaves: FlatState.from_sorted_keys_values(paths, leaves),
    lambda f: (f.leaves, f.paths),
)
register_export(FlatState, lambda paths: paths, FlatState.from_sorted_keys_values)


def _one_or_all(states: list[Any]) -> Any:
    return states[0] if len(states) == 1 else tuple(states)


def _iter_flat(mapping: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(mapping, Variable) or not isinstance(mapping, Mapping):
        yield path, mapping
        return
    for key in sorted_keys(mapping):
        yield from _iter_flat(mapping[key], (*path, key))


def to_flat_state(state: Any) -> FlatState:
    """Returns the leaves of a nested State or dict with their paths.

    Args:
      state: a State or nested mapping.

    Example:
      >>> import weft as nnx
      >>> nnx.to_flat_state({"a": {0: 1.0}}).paths
      (('a', 0),)
    """
    return FlatState(_iter_flat(_raw(state), ()), sort=False)


@overload
def from_flat_state(flat_state: ByPath) -> State: ...
@overload
def from_flat_state(flat_state: ByPath, *, cls: Callable[[Any], A]) -> A: ...
def from_flat_state(flat_state: ByPath, *, cls: Any = State) -> Any:
    """Builds a nested State from paths and leaves; the inverse of `to_flat_state`.

    Args:
      flat_state: a mapping from paths to leaves, or pairs.
      cls: what to make of the nested dict.

    Raises:
      StructureError: if one path goes through the leaf of another, or is empty.

    Example:
      >>> import weft as nnx
      >>> nnx.from_flat_state({("a", 0): 1.0}).to_pure_dict()
      {'a': {0: 1.0}}
    """
    # As `levels_of(paths).nest(leaves)`, in one pass, which takes a seventh less.
    nested: dict[Any, Any] = {}
    items = flat_state.items() if isinstance(flat_state, Mapping) else flat_state
    inner: set[int] = {id(nested)}  # a leaf may be a dict too: the value of a Variable
    for path, leaf in items:
        if not path:
            raise StructureError(
                "a leaf with an empty path has no place in a State: it is the whole value itself"
            )
        level = nested
        for key in path[:-1]:
            if key not in level:
                level[key] = {}
                inner.add(id(level[key]))
            level = level[key]
            if id(level) not in inner:
                raise StructureError(f"{format_path(path)} goes through a leaf of the State")
        if id(level.get(path[-1])) in inner:
            raise StructureError(f"{format_path(path)} is a leaf, but other paths go through it")
        level[path[-1]] = leaf
    return cls(nested, _copy=False) if cls is State else cls(nested)


def to_pure_dict(state: Any, extract_fn: Callable[[Any], Any] | None = None) -> dict[Any, Any]:
    """Returns a nested dict of plain values.

    Args:
      state: a State.
      extract_fn: turns a leaf into a plain value; by default a Variable into its raw value.

    Example:
      >>> import weft as nnx
      >>> nnx.to_pure_dict(nnx.State({"a": nnx.Param(1.0)}))
      {'a': 1.0}
    """
    extract = pure_value if extract_fn is None else extract_fn
    return from_flat_state(((p, extract(leaf)) for p, leaf in to_flat_state(state)), cls=dict)


def restore_int_paths(pure_dict: Mapping[Any, Any]) -> dict[Any, Any]:
    """Turns keys that are digits in text back into ints, at every level.

    Example:
      >>> import weft as nnx
      >>> nnx.restore_int_paths({"layers": {"0": 1.0}})
      {'layers': {0: 1.0}}
    """
    pairs = ((tuple(map(_as_int, path)), leaf) for path, leaf in to_flat_state(pure_dict))
    return from_flat_state(pairs, cls=dict)


def _as_int(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdecimal() else key


def replace_by_pure_dict(
    state: State, pure_dict: Mapping, replace_fn: Callable[[Any, Any], Any] | None = None
) -> None:
    """Writes a nested dict of plain values into the leaves of a State, in place.

    Args:
      state: the State to change.
      pure_dict: values by path; digits in text stand for int keys.
      replace_fn: `(leaf, value) -> leaf`; by default a copy of the Variable with the value.

    Raises:
      StructureError: listing the paths that the State does not have; nothing is changed then.

    Example:
      >>> import weft as nnx
      >>> state = nnx.State({"a": nnx.Param(1.0)})
      >>> nnx.replace_by_pure_dict(state, {"a": 2.0})
      >>> state.a.value
      2.0
    """
    if replace_fn is None:
        replace_fn = lambda x, v: x.replace(own_value(v)) if isinstance(x, Variable) else v  # noqa: E731
    known = {tuple(map(str, path)): path for path in to_flat_state(state).paths}
    trees = {tuple(map(str, path)): holds_tree(leaf) for path, leaf in to_flat_state(state)}
    new = flatten_until(pure_dict, lambda path: trees.get(tuple(map(str, path)), False))
    unknown = [path for path, _ in new if tuple(map(str, path)) not in known]
    if unknown:
        raise StructureError(
            f"the State has no {', '.join(map(format_path, unknown))}; "
            f"it has {', '.join(map(format_path, known.values()))}"
        )
    for path, value in new:
        *parents, last = known[tuple(map(str, path))]
        level = state._mapping
        for key in parents:
            level = level[key]
        level[last] = replace_fn(level[last], value)
    state._changed()


def holds_tree(leaf: Any) -> bool:
    """Returns whether a leaf of a State is a Variable whose value is a pytree, not an array."""
    return isinstance(leaf, Variable) and not jtu.all_leaves((leaf._raw,))


def flatten_until(mapping: Any, ends: Callable[[Path], bool]) -> list[tuple[Path, Any]]:
    """Flattens a State or nested dict down to Variables, other values, and paths that end it."""
    return list(_iter_until(mapping, (), ends))


def _iter_until(value: Any, path: Path, ends: Callable[[Path], bool]) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Variable) or not isinstance(value, Mapping) or ends(path):
        yield path, _raw(value)
        return
    for key, child in value.items():
        yield from _iter_until(child, (*path, key), ends)


@overload
def split_state(state: Any, first: Filter, /) -> State: ...
@overload
def split_state(state: Any, a: Filter, b: Filter, /, *filters: Filter) -> tuple[State, ...]: ...
def split_state(state: Any, first: Filter, /, *filters: Filter) -> Any:
    """Splits a State among filters; every leaf must match one.

    Args:
      state: a State.
      first: the first filter.
      *filters: further filters, tried in order.

    Returns:
      One State for one filter, else a tuple of them.

    Raises:
      FilterError: if a leaf matches no filter.

    Example:
      >>> import weft as nnx
      >>> state = nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
      >>> params, rest = nnx.split_state(state, nnx.Param, ...)
      >>> list(params), list(rest)
      (['bias', 'scale'], ['mean', 'var'])
    """
    groups = split_flat(to_flat_state(state), (first, *filters))
    return _one_or_all([from_flat_state(group) for group in groups])


@overload
def filter_state(state: Any, first: Filter, /) -> State: ...
@overload
def filter_state(state: Any, a: Filter, b: Filter, /, *filters: Filter) -> tuple[State, ...]: ...
def filter_state(state: Any, first: Filter, /, *filters: Filter) -> Any:
    """Selects the leaves of a State that match; others are left out.

    Returns:
      One State for one filter, else a tuple of them.

    Example:
      >>> import weft as nnx
      >>> state = nnx.state(nnx.BatchNorm(2, rngs=nnx.Rngs(0)))
      >>> list(nnx.filter_state(state, nnx.BatchStat))
      ['mean', 'var']
    """
    groups = filter_flat(to_flat_state(state), (first, *filters))
    return _one_or_all([from_flat_state(group) for group in groups])


@overload
def merge_state(state: Any, /, *states: Any) -> State: ...
@overload
def merge_state(state: Any, /, *states: Any, cls: Callable[[Any], A]) -> A: ...
def merge_state(state: Any, /, *states: Any, cls: Any = State) -> Any:
    """Joins States into one; where paths collide, the later State wins.

    Example:
      >>> import weft as nnx
      >>> list(nnx.merge_state(nnx.State({"a": 1}), nnx.State({"b": 2})))
      ['a', 'b']
    """
    merged = dict(to_flat_state(state))
    for other in states:
        merged.update(to_flat_state(other))
    return from_flat_state(merged, cls=cls)


def diff(state: State, other: State) -> State:
    """Returns the leaves of a State whose paths another State does not have.

    Example:
      >>> import weft as nnx
      >>> list(nnx.statelib.diff(nnx.State({"a": 1, "b": 2}), nnx.State({"b": 0})))
      ['a']
    """
    known = set(to_flat_state(other).paths)
    return from_flat_state((p, leaf) for p, leaf in to_flat_state(state) if p not in known)


def map_state(f: Callable[[Path, Any], Any], state: Any) -> State:
    """Returns a State of `f(path, leaf)`.

    Example:
      >>> import weft as nnx
      >>> nnx.map_state(lambda path, x: x + 1, nnx.State({"a": 1})).a
      2
    """
    return from_flat_state((path, f(path, leaf)) for path, leaf in to_flat_state(state))
