"""Lifted functions: what transforms that return functions have in common.

Such a transform says how its lift is *made* for a user's function, and how JAX is *applied* to a
call of it; all else is here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from weft._core.arguments import check_arrays, select_arguments
from weft._core.tracebacks import transformed
from weft._core.types import Missing
from weft._lift.jit.spec import Call
from weft._lift.lift import Lift, mode_of, unbind
from weft._lift.naming import names_in, shown_as

L = TypeVar("L", bound=Lift)


def one_group(
    transform: str, graph: bool | None, graph_updates: bool | None
) -> Callable[[Callable[..., Any], int], Lift]:
    """Returns what makes the lift of a transform that treats all leaves alike."""
    mode = mode_of(graph, graph_updates)
    return lambda function, bound: Lift(function, transform, mode, bound=bound)


def shown(lift: Lift, call: Call, pure: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Returns what JAX is handed for a call: by default the lift's pure function.

    It has the user's names in JAX's errors, programs and profiles.

    Raises:
      TypeError: if an argument is no array.
    """
    check_arrays(lift.transform, lift.name, call.entries)
    spec = call.spec
    pure = functools.partial(lift.pure, spec) if pure is None else pure
    return shown_as(lift.f, pure, lambda args: names_in(spec))


def lifted(
    f: Any,
    make: Callable[[Callable[..., Any], int], L],
    apply: Callable[[L, Call], Any],
    *,
    static: int | Iterable[int] = (),
    option: str = "static_argnums",
) -> Any:
    """Returns what a transform makes of a function, or a decorator that does.

    Args:
      f: the function, a bound method, or a callable object; `MISSING` for a decorator.
      make: makes the lift from a function and how many arguments come from a bound method.
      apply: calls JAX on the groups of a call, and writes what came out onto the objects,
        `lift.leave(call, groups, exit)`; without that they stay as they are.
      static: positions of static arguments.
      option: what these are called, for errors.

    Raises:
      ValueError: for a position that the function does not have.
    """

    def wrap(fun: Callable[..., Any]) -> Callable[..., Any]:
        function, bound = unbind(fun)
        lift = make(function, len(bound))
        lift.given = fun
        chosen = select_arguments(function, static, bound=len(bound), option=option)

        @transformed(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return apply(lift, lift.enter(*chosen.mark_static((*bound, *args), kwargs)))

        return run

    return wrap if isinstance(f, Missing) else wrap(f)
