"""Transforms that only look: `eval_shape`, `make_jaxpr`; and `remat` and `checkify`.

They treat all leaves alike: the lift has one group.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

import jax

from weft._core.static import Static
from weft._core.tracebacks import boundary
from weft._core.types import MISSING, Missing
from weft._graph.walk import Flattener
from weft._lift.jit.spec import Call
from weft._lift.lift import Lift, put_together, raw_leaves
from weft._lift.lifted import lifted, one_group, shown

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

    from weft._lift.options import (  # pyright: ignore[reportMissingModuleSource]
        MakeJaxprOptions,
        RematOptions,
    )

P = ParamSpec("P")
R = TypeVar("R")


@overload
def eval_shape(f: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
@overload
def eval_shape(
    f: Callable[..., R],
    *args: Any,
    graph: bool | None = None,
    graph_updates: bool | None = None,
    **kwargs: Any,
) -> R: ...
@boundary
def eval_shape(
    f: Callable[..., Any],
    *args: Any,
    graph: bool | None = None,
    graph_updates: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Returns what a function would return, with `jax.ShapeDtypeStruct`s in place of arrays.

    Nothing is computed, and the arguments stay as they are, whatever the function does to them.

    Args:
      f: the function.
      *args: objects and arrays, concrete or abstract.
      graph: False to refuse shared references; None for the setting.
      graph_updates: accepted as by all transforms; nothing is written back.
      **kwargs: further arguments.

    Example:
      >>> import weft as nnx
      >>> model = nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> model.kernel[...]
      ShapeDtypeStruct(shape=(2, 3), dtype=float32)
    """
    return lifted(f, one_group("eval_shape", graph, graph_updates), _eval_shape)(*args, **kwargs)


def _eval_shape(lift: Lift, call: Call) -> Any:
    def run(groups: list[list[Any]]) -> tuple[list[Any], Static]:
        # All that is returned is made anew, arguments included: these keep their arrays.
        inside = lift.rebuild(call.spec, groups)
        flattener = Flattener(arguments=True)
        record = flattener.flatten(lift.run(inside))
        return [raw_leaves(entry.value) for entry in flattener.entries], Static(record)

    leaves, record = jax.eval_shape(shown(lift, call, run), call.groups)
    return put_together(record.value, itertools.chain.from_iterable(leaves))


@overload
def make_jaxpr(
    f: Callable[P, Any], **options: Unpack[MakeJaxprOptions]
) -> Callable[P, ClosedJaxpr]: ...
@overload
def make_jaxpr(
    f: Missing = ..., **options: Unpack[MakeJaxprOptions]
) -> Callable[[Callable[P, Any]], Callable[P, ClosedJaxpr]]: ...
@boundary
def make_jaxpr(
    f: Any = MISSING,
    *,
    graph: bool | None = None,
    graph_updates: bool | None = None,
    static_argnums: int | Sequence[int] = (),
) -> Any:
    """Returns a function that traces and returns the jaxpr instead of a result.

    The jaxpr's inputs are all arrays of the arguments, its outputs those that were written,
    followed by those returned.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to leave structure alone; None for the setting.
      static_argnums: positions of static arguments, however a call gives them: by position, by
        keyword, or left at their defaults.

    Raises:
      ValueError: for a position that the function does not have.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> jaxpr = nnx.make_jaxpr(lambda m, x: m(x))(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jnp.ones(2))
      >>> len(jaxpr.out_avals)
      1
    """

    def apply(lift: Lift, call: Call) -> Any:
        return jax.make_jaxpr(shown(lift, call))(*call.groups)

    return lifted(f, one_group("make_jaxpr", graph, graph_updates), apply, static=static_argnums)


@overload
def remat(f: Callable[P, R], **options: Unpack[RematOptions]) -> Callable[P, R]: ...
@overload
def remat(
    f: Missing = ..., **options: Unpack[RematOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@boundary
def remat(
    f: Any = MISSING,
    *,
    prevent_cse: bool = True,
    static_argnums: int | Sequence[int] = (),
    policy: Callable[..., bool] | None = None,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Returns a function whose intermediate values are computed again for the gradient.

    Args:
      f: the function. If missing, a decorator with the options is returned.
      prevent_cse: as for `jax.checkpoint`.
      static_argnums: positions of static arguments, however a call gives them: by position, by
        keyword, or left at their defaults.
      policy: which intermediate values to keep, as for `jax.checkpoint`.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Raises:
      ValueError: for a position that the function does not have.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.remat(lambda m, x: m(x))(model, jnp.ones((1, 2))).shape
      (1, 3)
    """

    def apply(lift: Lift, call: Call) -> Any:
        again = jax.checkpoint(shown(lift, call), prevent_cse=prevent_cse, policy=policy)
        return lift.leave(call, *again(*call.groups))

    return lifted(f, one_group("remat", graph, graph_updates), apply, static=static_argnums)


checkpoint = remat


def checkify(
    f: Callable[P, R],
    errors: Any = None,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Callable[P, tuple[Any, R]]:
    """Returns a function that also returns the error of failed checks in it.

    Args:
      f: the function.
      errors: which errors to check, as for `jax.experimental.checkify`; user checks by default.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Returns:
      A function of the same arguments that returns `(error, result)`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> error, y = nnx.checkify(lambda m, x: m(x))(model, jnp.ones(2))
      >>> error.get() is None
      True
    """
    from jax.experimental import checkify as jax_checkify

    chosen = jax_checkify.user_checks if errors is None else errors

    def apply(lift: Lift, call: Call) -> Any:
        checked = jax_checkify.checkify(shown(lift, call), errors=chosen)
        error, (groups, exit) = checked(*call.groups)
        return error, lift.leave(call, groups, exit)

    return lifted(f, one_group("checkify", graph, graph_updates), apply)
