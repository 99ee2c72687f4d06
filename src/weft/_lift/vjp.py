"""`vjp` and `jvp` through objects.

The groups of the lift are what is differentiated and the rest, as for `grad`. What the function
returns is differentiated; what it writes comes out beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, overload

import jax
import jax.numpy as jnp

from weft._core.errors import StructureError
from weft._core.tracebacks import boundary
from weft._core.types import MISSING, Missing
from weft._graph.walk import Flattener
from weft._lift.autodiff import KEYS, grad_prefixes
from weft._lift.jit.spec import Exit, Groups
from weft._lift.lift import Lift, argument_paths, mode_of, name_of, raw_leaves, unbind
from weft._lift.tangents import form_tangent, leaves_by_path, match, tangents_of

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")

OUT, AUX = "out", "aux"


def _lift(f: Callable[..., Any], transform: str, has_aux: bool, **options: Any) -> Lift:
    out_prefix = (OUT, AUX) if has_aux else OUT
    return Lift(
        f, transform, out_prefix=out_prefix, in_keys=KEYS, out_keys=[OUT, AUX, *KEYS], **options
    )


def _results(lift: Lift, call: Any, out: list[Any], rest: Groups, exit: Exit, has_aux: bool) -> Any:
    result = lift.leave(call, [out, *rest], exit)
    return result if has_aux else (result, None)


Pull = Callable[[Any], tuple[Any, ...]]


@overload
def vjp(
    f: Callable[..., tuple[R, X]],
    *primals: Any,
    has_aux: Literal[True],
    reduce_axes: Sequence[str] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> tuple[R, Pull, X]: ...
@overload
def vjp(
    f: Callable[..., R],
    *primals: Any,
    has_aux: Literal[False] = False,
    reduce_axes: Sequence[str] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> tuple[R, Pull]: ...
@overload
def vjp(
    f: Callable[..., Any],
    *primals: Any,
    has_aux: bool,
    reduce_axes: Sequence[str] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> tuple[Any, ...]: ...
@overload
def vjp(
    f: Missing = ...,
    *,
    has_aux: bool = False,
    reduce_axes: Sequence[str] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...
@boundary
def vjp(
    f: Any = MISSING,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: Sequence[str] = (),
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Computes a function and what pulls cotangents of its result back to its arguments.

    Args:
      f: a function of objects and arrays. If missing, a decorator with the options is returned.
      *primals: the arguments. Of an object the `Param`s are differentiated; all of it without
        structure updates.
      has_aux: whether `f` returns a pair of a result and further values.
      reduce_axes: accepted for compatibility; must be empty.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only and to return cotangents of the arguments'
        own types; None for the setting.

    Returns:
      `(result, vjp_fun)`, or `(result, vjp_fun, aux)`. `vjp_fun` takes a cotangent of the result's
      structure and returns a tuple of one cotangent per argument.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> y, pull = nnx.vjp(lambda m, x: m(x), model, jnp.ones((3, 2)))
      >>> grads, _ = pull(jnp.ones_like(y))
      >>> float(grads.bias[0])
      3.0
    """
    if reduce_axes:
        raise ValueError(
            f"reduce_axes={reduce_axes!r} is not supported: sum over mesh axes with `jax.lax.psum`"
        )
    if isinstance(f, Missing):
        return lambda fun: (
            lambda *args: vjp(fun, *args, has_aux=has_aux, graph=graph, graph_updates=graph_updates)
        )
    mode = mode_of(graph, graph_updates)
    function, bound = unbind(f)
    whole = grad_prefixes(tuple(range(len(primals))), len(primals), mode)
    options = {"in_prefix": whole, "bound": len(bound), "bound_prefix": False}
    lift = _lift(function, "vjp", has_aux, mode=mode, **options)
    call = lift.enter((*bound, *primals))

    def of_differentiated(arrays: list[Any]) -> Any:
        (out, *rest), exit = lift.pure(call.spec, arrays, call.groups[1])
        return out, (rest, exit)

    out, pull, (rest, exit) = jax.vjp(of_differentiated, call.groups[0], has_aux=True)
    result, aux = _results(lift, call, out, rest, exit, has_aux)

    @boundary
    def vjp_fun(cotangent: Any) -> tuple[Any, ...]:
        flattener = Flattener(arguments=True)
        flattener.flatten(cotangent, ("cotangent",))
        arrays = [array for entry in flattener.entries for array in raw_leaves(entry.value)]
        if len(arrays) != len(out):
            raise StructureError(
                f"the cotangent of nnx.vjp of {lift.name!r} must have the structure of its "
                f"result with {len(out)} arrays, found {len(arrays)}: "
                "`jax.tree.map(jnp.ones_like, result)`"
            )
        for array, primal in zip(arrays, out, strict=True):
            if jnp.shape(array) != primal.shape:
                raise StructureError(
                    f"the cotangent of nnx.vjp of {lift.name!r} must have the shapes of its "
                    f"result, {primal.shape}, found {jnp.shape(array)}: "
                    "`jax.tree.map(jnp.ones_like, result)`"
                )
        [grads] = pull(arrays)
        positions = range(len(bound), len(bound) + len(primals))
        return tuple(tangents_of(call, positions, grads, mode))

    return (result, vjp_fun, aux) if has_aux else (result, vjp_fun)


@overload
def jvp(
    f: Callable[..., tuple[R, X]],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: Literal[True],
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> tuple[R, Any, X]: ...
@overload
def jvp(
    f: Callable[..., R],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: Literal[False] = False,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> tuple[R, Any]: ...
@overload
def jvp(
    f: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: bool,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> tuple[Any, ...]: ...
@overload
def jvp(
    f: Missing = ...,
    *,
    has_aux: bool = False,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Callable[[Callable[..., Any]], Callable[[Sequence[Any], Sequence[Any]], Any]]: ...
@boundary
def jvp(
    f: Any = MISSING,
    primals: Any = MISSING,
    tangents: Any = MISSING,
    *,
    has_aux: bool = False,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> Any:
    """Computes a function and its derivative along a direction.

    Args:
      f: a function of objects and arrays. If missing, a decorator with the options is returned.
      primals: the arguments.
      tangents: one direction per argument: of an object a State, pure dict or object that holds
        the Variables which move; the others stay.
      has_aux: whether `f` returns a pair of a result and further values.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Returns:
      `(result, tangent)`, or `(result, tangent, aux)`.

    Raises:
      StructureError: naming tangents that no argument has, and those of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> direction = {"bias": jnp.ones(1)}
      >>> y, dy = nnx.jvp(lambda m: m(jnp.ones((3, 2))), (model,), (direction,))
      >>> float(dy[0, 0])
      1.0
    """
    if isinstance(f, Missing):
        return lambda fun: (
            lambda primals, tangents: jvp(
                fun, primals, tangents, has_aux=has_aux, graph=graph, graph_updates=graph_updates
            )
        )
    if len(primals) != len(tangents):
        raise StructureError(
            f"nnx.jvp was given {len(tangents)} tangents for {len(primals)} primals: one per "
            "argument, `nnx.jvp(f, (model, x), (nnx.state(model), x_tangent))`"
        )
    mode = mode_of(graph, graph_updates)
    function, bound = unbind(f)
    probe = Lift(function, "jvp", mode).enter((*bound, *primals))
    paths = argument_paths(function, len(bound) + len(primals))[len(bound) :]
    given: dict[Any, Any] = {}
    for path, tangent in zip(paths, tangents, strict=True):
        given.update(leaves_by_path(tangent, path))
    places = [(entry.path, raw_leaves(entry.value)) for entry in probe.entries]
    matched = match(places, given, f"nnx.jvp of {name_of(function)!r} has tangents")
    lift = _lift(
        function,
        "jvp",
        has_aux,
        mode=mode,
        in_prefix=False,
        in_key=lambda path, prefix: path in given,
        bound=len(bound),
        bound_prefix=False,
    )
    call = lift.enter((*bound, *primals))
    directions = [array for arrays in matched if arrays is not None for array in arrays]

    def of_differentiated(arrays: list[Any]) -> Any:
        (out, *rest), exit = lift.pure(call.spec, arrays, call.groups[1])
        return out, (rest, exit)

    out, moved, (rest, exit) = jax.jvp(
        of_differentiated, (call.groups[0],), (directions,), has_aux=True
    )
    result, aux = _results(lift, call, out, rest, exit, has_aux)
    record = exit.out.children[0] if has_aux else exit.out  # type: ignore[union-attr]
    tangent = form_tangent(record, iter(lambda: True, False), iter(moved), mode)
    return (result, tangent, aux) if has_aux else (result, tangent)
