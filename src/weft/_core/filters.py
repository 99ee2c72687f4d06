"""Filters: which Variables are meant.

A *predicate* is a function of a path and a value that says yes or no. A *filter* is anything that
`to_predicate` turns into one: a type, a tag, `...`, `None`, a bool, a callable, a list of filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import EllipsisType
from typing import Any as AnyType
from typing import ClassVar

from weft._core.errors import FilterError
from weft._core.path import Pair, Path, format_path

Predicate = Callable[[Path, AnyType], bool]
FilterLiteral = type | str | Predicate | bool | EllipsisType | None
Filter = FilterLiteral | tuple["Filter", ...] | list["Filter"]


def to_predicate(filter: Filter) -> Predicate:
    """Turns a filter into a predicate.

    Args:
      filter: a type (instances of it), a string (values whose `tag` it is), `...` or True
        (everything), None or False (nothing), a list or tuple of filters (any of them), or a
        callable `(path, value) -> bool`.

    Returns:
      A callable `(path, value) -> bool`.

    Raises:
      FilterError: for anything else.

    Example:
      >>> import weft as nnx
      >>> is_param = nnx.filterlib.to_predicate(nnx.Param)
      >>> is_param(("kernel",), nnx.Param(1.0))
      True
    """
    if isinstance(filter, type):
        return OfType(filter)
    if filter is ... or filter is True:
        return Everything()
    if filter is None or filter is False:
        return Nothing()
    if isinstance(filter, str):
        return WithTag(filter)
    if isinstance(filter, (list, tuple)):
        return Any(*filter)
    if callable(filter):
        return filter
    raise FilterError(
        f"{filter!r} of type {type(filter).__name__} is not a filter: expected a Variable type "
        "such as `nnx.Param`, a tag string, `...`, None, a bool, a callable `(path, value) -> "
        "bool`, or a list of these"
    )


def filters_to_predicates(filters: Sequence[Filter]) -> tuple[Predicate, ...]:
    """Turns filters, tried in order, into predicates.

    Args:
      filters: the filters; `...` and True match the rest and may only stand last.

    Returns:
      One predicate per filter.

    Raises:
      FilterError: when a filter follows `...`.

    Example:
      >>> import weft as nnx
      >>> params, rest = nnx.filterlib.filters_to_predicates((nnx.Param, ...))
      >>> params(("kernel",), nnx.Param(1.0)), rest(("mean",), nnx.BatchStat(0.0))
      (True, True)
    """
    for i, filter in enumerate(filters[:-1]):
        if (filter is ... or filter is True) and any(
            f not in (..., True) for f in filters[i + 1 :]
        ):
            raise FilterError(
                f"`...` matches everything, so the filters after it, {filters[i + 1 :]!r}, could "
                "never match: put `...` last"
            )
    return tuple(map(to_predicate, filters))


class _Rule:
    """A predicate that compares, and is hashed, by its attributes. As a dataclass, made quicker."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def _parts(self) -> tuple[AnyType, ...]:
        return tuple([getattr(self, name) for name in self._fields])

    def __nnx_parts__(self) -> tuple[AnyType, ...]:
        """Returns the arguments that make it again, for it to be written as text."""
        return self._parts()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._parts() == other._parts()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self._parts()))

    def __repr__(self) -> str:
        parts = zip(self._fields, self._parts(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={part!r}' for name, part in parts)})"


def filter_text(filter: AnyType) -> str:
    """Writes a filter as code: `nnx.Param`."""
    if isinstance(filter, type):
        return ("nnx." if filter.__module__.startswith("weft.") else "") + filter.__name__
    if isinstance(filter, (tuple, list)):
        return f"({', '.join(map(filter_text, filter))})"
    return "..." if filter is ... else repr(filter)


class OfType(_Rule):
    """Matches values that are instances of a type; what a bare type means as a filter.

    Example:
      >>> import weft as nnx
      >>> nnx.OfType(nnx.Param)((), nnx.BatchStat(0.0))
      False
    """

    _fields = ("type",)

    def __init__(self, type: type):
        self.type = type

    def __call__(self, path: Path, value: AnyType) -> bool:
        return isinstance(value, self.type)


class WithTag(_Rule):
    """Matches values whose attribute `tag` is the given string; what a bare string means.

    Example:
      >>> import weft as nnx
      >>> nnx.WithTag("dropout")((), nnx.Rngs(dropout=0).dropout.key)
      True
    """

    _fields = ("tag",)

    def __init__(self, tag: str):
        self.tag = tag

    def __call__(self, path: Path, value: AnyType) -> bool:
        return getattr(value, "tag", None) == self.tag


class PathContains(_Rule):
    """Matches values below a key: some element of the path equals it, or contains it as text.

    Attributes:
      key: the path element to look for.
      exact: False to accept elements that contain `key` as text.

    Example:
      >>> import weft as nnx
      >>> nnx.PathContains("head")(("head", "kernel"), None)
      True
    """

    _fields = ("key", "exact")
    exact: bool = True

    def __init__(self, key: AnyType, exact: bool = True):
        self.key = key
        self.exact = exact

    def __call__(self, path: Path, value: AnyType) -> bool:
        if self.exact:
            return self.key in path
        return any(str(self.key) in str(element) for element in path)


class PathIn(_Rule):
    """Matches the given paths and no others.

    Example:
      >>> import weft as nnx
      >>> nnx.filterlib.PathIn(("head", "kernel"))(("head", "bias"), None)
      False
    """

    _fields = ("paths",)

    def __init__(self, *paths: Path):
        self.paths = frozenset(paths)

    def __nnx_parts__(self) -> tuple[AnyType, ...]:
        return tuple(sorted(self.paths, key=repr))

    def __call__(self, path: Path, value: AnyType) -> bool:
        return path in self.paths

    def __repr__(self) -> str:
        return f"PathIn({', '.join(map(repr, sorted(self.paths, key=repr)))})"


class _Combined(_Rule):
    """Filters joined by a rule; prints as it is called."""

    _fields = ("predicates",)

    def __init__(self, *filters: Filter):
        self.predicates = tuple(map(to_predicate, filters))

    def __nnx_parts__(self) -> tuple[AnyType, ...]:
        return self.predicates

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.predicates))})"


class Any(_Combined):
    """Matches when at least one of the filters does.

    Example:
      >>> import weft as nnx
      >>> nnx.Any(nnx.Param, "dropout")((), nnx.Param(1.0))
      True
    """

    def __call__(self, path: Path, value: AnyType) -> bool:
        return any(predicate(path, value) for predicate in self.predicates)


class All(_Combined):
    """Matches when every one of the filters does.

    Example:
      >>> import weft as nnx
      >>> nnx.All(nnx.Param, nnx.PathContains("head"))(("body",), nnx.Param(1.0))
      False
    """

    def __call__(self, path: Path, value: AnyType) -> bool:
        return all(predicate(path, value) for predicate in self.predicates)


class Not(_Combined):
    """Matches when the filter does not.

    Example:
      >>> import weft as nnx
      >>> nnx.Not(nnx.Param)((), nnx.BatchStat(0.0))
      True
    """

    def __init__(self, collection_filter: Filter, /):
        super().__init__(collection_filter)

    def __call__(self, path: Path, value: AnyType) -> bool:
        return not self.predicates[0](path, value)


class Everything(_Rule):
    """Matches always; what `...` and True mean.

    Example:
      >>> import weft as nnx
      >>> nnx.Everything()((), 0)
      True
    """

    def __call__(self, path: Path, value: AnyType) -> bool:
        return True


class Nothing(_Rule):
    """Matches never; what None and False mean.

    Example:
      >>> import weft as nnx
      >>> nnx.Nothing()((), 0)
      False
    """

    def __call__(self, path: Path, value: AnyType) -> bool:
        return False


def is_structural(predicate: Predicate) -> bool:
    """Returns whether a predicate looks at types, metadata and paths alone."""
    if isinstance(predicate, _Combined):
        return type(predicate) in _STRUCTURAL and all(map(is_structural, predicate.predicates))
    if isinstance(predicate, PathContains):
        return type(predicate) is PathContains and type(predicate.key) in (str, int)
    return type(predicate) in _STRUCTURAL


_STRUCTURAL = frozenset({OfType, WithTag, PathIn, Any, All, Not, Everything, Nothing})


def split_flat(items: Iterable[Pair], filters: Sequence[Filter]) -> list[list[Pair]]:
    """Splits (path, leaf) pairs among filters; the first that matches takes a pair.

    Raises:
      FilterError: naming the pairs that no filter matches.
    """
    predicates = filters_to_predicates(filters)
    groups: list[list[tuple[Path, AnyType]]] = [[] for _ in predicates]
    rest = []
    for path, leaf in items:
        for predicate, group in zip(predicates, groups, strict=True):
            if predicate(path, leaf):
                group.append((path, leaf))
                break
        else:
            rest.append((path, leaf))
    if rest:
        named = ", ".join(f"{format_path(p)} ({type(leaf).__name__})" for p, leaf in rest[:8])
        raise FilterError(
            f"the filters {filter_text(tuple(filters))} leave {len(rest)} of the Variables over: "
            f"{named}. Add `...` as the last filter to take the rest"
        )
    return groups


def filter_flat(items: Iterable[Pair], filters: Sequence[Filter]) -> list[list[Pair]]:
    """As `split_flat`, but pairs that no filter matches are left out."""
    return split_flat(items, (*filters, ...))[: len(filters)]
