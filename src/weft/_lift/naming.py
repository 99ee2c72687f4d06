"""Naming: what JAX calls a function and its arguments, in errors, programs and profiles.

JAX asks a function for its name, for its file and line, and by its signature for the names of the
arguments. What a transform hands to JAX is a function of groups of arrays; `shown_as` gives it the
name and the line of the user's function, and to each array the path that it has there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from weft._core.path import Path, format_path
from weft._graph.records import ArrayDef, Record, VariableDef, leaves_of
from weft._lift.jit.spec import Spec

Names = Callable[[tuple[Any, ...]], Sequence[str]]


def shown_as(f: Callable[..., Any], pure: Callable[..., Any], names: Names) -> Callable[..., Any]:
    """Returns a function that does what one does and is called what another one is called.

    Args:
      f: the user's function.
      pure: the function that JAX is to call.
      names: returns what to call each array among the positional arguments it is given, in JAX's
        order; more names are those of keyword arguments, which are called by their keywords.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        return pure(*args, **kwargs)

    source = f
    while isinstance(source, functools.partial):
        source = source.func
    if not hasattr(source, "__name__"):
        source = type(source).__call__
    run.__name__ = source.__name__
    run.__qualname__ = getattr(source, "__qualname__", source.__name__)
    run.__wrapped__ = source  # type: ignore[attr-defined]
    run.__signature__ = _Signature(names)  # type: ignore[attr-defined]
    return run


class _Signature(inspect.Signature):
    """A signature that binds each array to its own name."""

    def __init__(self, names: Names):
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        names_of_kinds = ("arguments", "keywords")
        super().__init__(list(map(inspect.Parameter, names_of_kinds, kinds)))
        self._names = names

    def bind(self, /, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        bound = super().bind(*args, **kwargs)
        arrays, names = jax.tree.leaves(args), self._names(args)
        if len(arrays) > len(names) or (len(arrays) < len(names) and not kwargs):
            return bound
        return _Named(self, {**dict(zip(names, arrays, strict=False)), **kwargs}, args, kwargs)


class _Named(inspect.BoundArguments):
    """The arguments of a call by the names of their arrays, and as they were given."""

    __slots__ = ("_given",)

    def __init__(
        self,
        signature: inspect.Signature,
        arguments: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ):
        super().__init__(signature, arguments)
        self._given = args, kwargs

    @property
    def args(self) -> tuple[Any, ...]:
        return self._given[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        return self._given[1]


def names_in(spec: Spec) -> list[str]:
    """Returns the paths of the arrays of a call, group after group."""
    groups = names_by_group(spec)
    return [name for group in sorted(groups) for name in groups[group]]


def names_by_group(spec: Spec) -> dict[int, list[str]]:
    """Returns the paths of the arrays of a call, by the number of the group."""
    groups: dict[int, list[str]] = {}
    leaves = zip(spec.entries, spec.grouping, leaves_of(spec.record), strict=True)
    for entry, group, (_, record) in leaves:
        groups.setdefault(group, []).extend(_names_at(entry.path, record))
    return groups


def names_below(record: Record, path: Path) -> list[str]:
    """Returns the paths of the arrays of a value."""
    return [name for below, leaf in leaves_of(record) for name in _names_at((*path, *below), leaf)]


def _names_at(path: Path, record: VariableDef | ArrayDef) -> list[str]:
    name, treedef = format_path(path), getattr(record, "treedef", None)
    return [name] if treedef is None else [f"{name}[{i}]" for i in range(treedef.num_leaves)]
