"""Lifted functions: what transforms that return functions have in common.

Such a transform says how its lift is *made* for a user's function, and how JAX is *applied* to a
call of it; all else is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from weft._core.arguments import select_arguments
from weft._core.tracebacks import transformed
from weft._core.types import Missing
from weft._lift.jit.spec import Call
from weft._lift.lift import Lift, unbind

L = TypeVar("L", bound=Lift)


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
      apply: calls JAX on the groups of a call and leaves it: `lift.leave(call, groups, exit)`.
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
