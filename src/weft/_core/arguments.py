"""Arguments: which parameter of a function each belongs to.

A prefix stands at the position of a parameter, errors name arguments by their parameters, and
options choose arguments by the position or the name of theirs, however a call gives them.
"""

from __future__ import annotations

import inspect
import reprlib
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax.tree_util as jtu
import numpy as np

from weft._core.caches import forgets
from weft._core.path import VALUE, Path, format_path, key_of_entry
from weft._core.static import Static, static_argument
from weft._core.types import ARRAY_TYPES, SCALAR_TYPES


class Parameters(NamedTuple):
    """The names of a function's positional parameters, of its `*args`, and the defaults."""

    names: tuple[str, ...]
    rest: str | None
    defaults: Mapping[str, Any]


_known: weakref.WeakKeyDictionary[Any, Parameters] = weakref.WeakKeyDictionary()


def parameters_of(f: Callable[..., Any]) -> Parameters:
    """Returns the positional parameters of a function; none where it does not tell."""
    try:
        known = _known.get(f)
        if known is None:
            known = _known[f] = _read_parameters(f)
    except TypeError:  # a callable that cannot be hashed or weakly referenced
        return _read_parameters(f)
    return known


@forgets
def clear() -> None:
    """Forgets the parameters of functions."""
    _known.clear()


def _read_parameters(f: Callable[..., Any]) -> Parameters:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # builtins have none
        return Parameters((), None, {})
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = tuple(p.name for p in parameters if p.kind in positional)
    rest = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    return Parameters(
        names, rest, {p.name: p.default for p in parameters if p.default is not p.empty}
    )


def takes_keyword(f: Callable[..., Any], name: str) -> bool:
    """Returns whether a function takes a keyword argument of a name."""
    parameters = inspect.signature(f).parameters
    found = parameters.get(name)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    rest = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return rest if found is None else found.kind in named


def as_tuple(x: Any) -> tuple[Any, ...]:
    """Returns an int or a string as a tuple of one, a sequence as a tuple, None as an empty one."""
    if x is None:
        return ()
    return (x,) if isinstance(x, (int, str)) else tuple(x)


class Selection(NamedTuple):
    """Arguments chosen by position, those of a bound method counted, and by name."""

    positions: frozenset[int]
    names: frozenset[str]

    def mark_static(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Puts the chosen ones among the arguments of a call into boxes.

        One that is left at its default is none of the call's arguments, and static anyway.
        """
        if self.positions:
            number = len(args)
            chosen = {i + number if i < 0 else i for i in self.positions}
            args = tuple(static_argument(x) if i in chosen else x for i, x in enumerate(args))
        names = self.names
        return args, {k: static_argument(x) if k in names else x for k, x in kwargs.items()}


def select_arguments(
    f: Callable[..., Any],
    argnums: Any,
    argnames: Any = None,
    *,
    bound: int = 0,
    option: str = "static_argnums",
) -> Selection:
    """Completes positions by names and names by positions, with the signature of a function.

    Args:
      f: the function.
      argnums: positions, not counting bound arguments; negative ones from the end.
      argnames: names.
      bound: how many arguments come from a bound method.
      option: what the positions are called, for errors.

    Raises:
      TypeError: if a position is no int.
      ValueError: if a name or position is not in the signature.
    """
    is_other = not isinstance(argnums, (int, str, Iterable, type(None)))
    numbers = (argnums,) if is_other else as_tuple(argnums)
    names = frozenset(as_tuple(argnames))
    if not numbers and not names:  # a signature takes long, and transforms are made in loops
        return Selection(frozenset(), frozenset())
    for i in numbers:
        if not isinstance(i, int) or isinstance(i, bool):
            raise TypeError(f"{option} must be positions, as in `{option}=1`, found {i!r}")
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # builtins have no signature
        return Selection(frozenset(i + bound if i >= 0 else i for i in numbers), names)
    name = getattr(f, "__qualname__", type(f).__name__)
    positional = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    has_rest = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    unknown = names - {p.name for p in parameters}
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(
            f"{name!r} has no argument {', '.join(map(repr, sorted(unknown)))}; it has "
            f"{', '.join(p.name for p in parameters)}"
        )
    own = positional[bound:]
    for i in numbers:
        if not has_rest and not -len(own) <= i < len(own):
            numbered = ", ".join(f"{k}: {own_name}" for k, own_name in enumerate(own))
            raise ValueError(
                f"{option}={argnums!r} asks for position {i}, but {name!r} has {len(own)} "
                f"positional arguments, found position {i}: the positional arguments "
                f"of {name!r} are {numbered or 'none'}"
            )
    # Those of `*args` are counted from the end of each call.
    positions = {i + bound if i >= 0 else i + len(positional) * (not has_rest) for i in numbers}
    if argnames is None:
        names = frozenset(positional[i] for i in positions if 0 <= i < len(positional))
    elif argnums is None:
        positions = {i for i, known in enumerate(positional) if known in names}
    return Selection(frozenset(positions), names)


def argument_paths(f: Callable[..., Any], number: int, skip: int = 0, bound: int = 0) -> list[Path]:
    """Returns a path for each positional argument, by the names of the parameters.

    Args:
      f: the function.
      number: how many arguments.
      skip: how many parameters, after the bound ones, are not among them; negative if arguments
        come first that `f` does not have.
      bound: how many come from a bound method.
    """
    names, rest, _ = parameters_of(f)
    names = names[:bound] + names[bound + skip :] if skip >= 0 else ("functions",) * -skip + names
    paths: list[Path] = [(name,) for name in names[:number]]
    return paths + [(rest or "args", i) for i in range(number - len(paths))]


def leaf_paths(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    is_leaf: Callable[[Any], bool] | None = None,
) -> list[tuple[Path, Any]]:
    """Returns the leaves of a call, each with a path that begins with the parameter's name."""
    names = argument_paths(f, len(args))
    found = []
    for entries, leaf in jtu.tree_flatten_with_path((args, dict(kwargs)), is_leaf)[0]:
        entries = [entry for entry in entries if entry is not VALUE]
        kind, first, *rest = map(key_of_entry, entries)
        found.append(((*(names[first] if kind == 0 else (first,)), *rest), leaf))
    return found


def by_position(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    number: int | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Moves keyword arguments to the positions of their parameters.

    Args:
      f: the function.
      args: its positional arguments.
      kwargs: its keyword arguments.
      number: how many positions to fill, with defaults where nothing is given; None to move all
        keyword arguments that have a position. Defaults are static.

    Returns:
      The positional arguments, and the remaining keyword arguments.
    """
    names, _, defaults = parameters_of(f)
    last = max((i + 1 for i, name in enumerate(names) if name in kwargs), default=0)
    placed, remaining = list(args), dict(kwargs)
    for name in names[len(args) : last if number is None else number]:
        if name in remaining:
            placed.append(remaining.pop(name))
        elif name in defaults:
            placed.append(Static(defaults[name]))
        else:  # the function itself says which argument is missing
            return args, dict(kwargs)
    return tuple(placed), remaining


def signature_beside(f: Callable[..., Any], name: str, bound: int, **axes: Any) -> str:
    """Returns a function's signature above the axes given for it, as lines of an error."""
    names, rest, _ = parameters_of(f)
    shown = ", ".join([*names[bound:], *([f"*{rest}"] if rest else [])])
    width = max(map(len, ["function", *axes])) + 1
    lines = {"function": f"{name}({shown})"} | {key: repr(value) for key, value in axes.items()}
    return "".join(f"\n  {key + ':':<{width}} {line}" for key, line in lines.items())


def check_arrays(transform: str, name: str, entries: Iterable[tuple[Path, Any, Any]]) -> None:
    """Raises unless all that JAX is given is something that it takes.

    Args:
      transform: the transform's name.
      name: the function's.
      entries: path and value of each leaf of the arguments.

    Raises:
      TypeError: naming the path of what is no array.
    """
    for path, value, _ in entries:
        if is_taken(value):
            continue
        raise TypeError(
            f"nnx.{transform} of {name!r} was given {reprlib.repr(value)}, a "
            f"{type(value).__name__}, as {format_path(path)}, which is no array. Bind it to the "
            f"function, `functools.partial(f, {path[0]}=...)`, or give its position where the "
            "transform has an option for static arguments"
        )


_TAKEN = (*ARRAY_TYPES, *SCALAR_TYPES)
_NO_NUMBERS = frozenset("OSTUMm")  # kinds of dtypes: objects, texts and times


def is_taken(value: Any) -> bool:
    """Returns whether a value is something that JAX takes for an array."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind not in _NO_NUMBERS
    # The class is asked first: a Variable would take a look at its dtype for a read.
    is_array = isinstance(value, _TAKEN) or hasattr(type(value), "__jax_array__")
    return is_array or hasattr(value, "dtype")
