"""The transforms that the laws are tried on: one record each.

To add a transform, add its record to `TRANSFORMS`: the laws and cases come by themselves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import weft as nnx

Function = Callable[..., Any]
P = jax.sharding.PartitionSpec


class Mode(NamedTuple):
    """Options of a transform, by a name for the test's id."""

    name: str
    graph: bool
    graph_updates: bool

    def options(self) -> dict[str, bool]:
        return {"graph": self.graph, "graph_updates": self.graph_updates}


FULL = Mode("full", True, True)
TREE = Mode("tree", False, True)
VALUES = Mode("values", True, False)


@dataclasses.dataclass(frozen=True)
class Transform:
    """A transform and how to try a law on it.

    Attributes:
      name: what errors call it: `nnx.<name>`.
      wrap: `wrap(body, **mode)` returns a function of the same objects that runs the body under
        the transform and returns what the body returned.
      method: `method(f, **mode)` transforms `f(x)`, a bound method that takes an array and returns
        a scalar; what the transformed function returns does not matter.
      disagree: transforms a function of two objects such that these have different prefixes.
      laws: the numbers of the laws that apply.
      unless: names of cases that do not apply, each with the reason.
    """

    name: str
    wrap: Function
    method: Function
    disagree: Function
    laws: frozenset[int]
    unless: dict[str, str] = dataclasses.field(default_factory=dict)


def _as_aux(transform: Function) -> Function:
    """Runs a body inside a differentiated function: its result comes out as auxiliary value."""

    def wrap(body: Function, **mode: Any) -> Function:
        @functools.wraps(body)
        def loss(*objects: Any) -> Any:
            return jnp.zeros(()), body(*objects)

        differentiated = transform(loss, has_aux=True, **mode)

        def run(*objects: Any) -> Any:
            out = differentiated(*objects)
            return out[1] if transform is nnx.grad else out[0][1]

        return run

    return wrap


def _two_shardings(body: Function) -> Function:
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return nnx.jit(body, in_shardings=(first, None))


def _first_of_two(transform: Function) -> Function:
    return lambda body: transform(lambda a, b: body(a, b) or jnp.zeros(()))


def _vmap(body: Function, in_axes: Any = None, **mode: Any) -> Function:
    return nnx.vmap(body, in_axes=in_axes, out_axes=None, axis_size=1, **mode)


def _shard_map(body: Function, in_specs: Any = P(), **mode: Any) -> Function:
    mesh = jax.make_mesh((1,), ("one",), axis_types=(jax.sharding.AxisType.Auto,))
    return nnx.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=P(), **mode)


def _checkify(body: Function, **mode: Any) -> Function:
    checked = nnx.checkify(body, **mode)
    return lambda *objects: checked(*objects)[1]


def _cond(body: Function, **mode: Any) -> Function:
    return lambda *objects: nnx.cond(True, body, body, *objects, **mode)


def _switch(body: Function, **mode: Any) -> Function:
    return lambda *objects: nnx.switch(1, [body, body], *objects, **mode)


def _vjp(body: Function, **mode: Any) -> Function:
    return lambda *objects: nnx.vjp(_with_aux(body), *objects, has_aux=True, **mode)[2]


def _jvp(body: Function, **mode: Any) -> Function:
    def run(*objects: Any) -> Any:
        still: tuple[Any, ...] = tuple({} for _ in objects)
        return nnx.jvp(_with_aux(body), objects, still, has_aux=True, **mode)[2]

    return run


def _with_aux(body: Function) -> Function:
    return functools.wraps(body)(lambda *objects: (jnp.zeros(()), body(*objects)))


def _custom_vjp(body: Function, **mode: Any) -> Function:
    function = nnx.custom_vjp(body, **mode)
    function.defvjp(lambda *objects: (body(*objects), None), lambda residuals, cotangents: ())
    return function


def _of_arguments(f: Function) -> Function:
    return lambda transform: lambda body, **mode: transform(body, f, **mode)


def _scan(body: Function, **mode: Any) -> Function:
    return _in_loop(
        body,
        lambda step, carry: nnx.scan(
            step, length=1, in_axes=nnx.Carry, out_axes=nnx.Carry, **mode
        )(carry),
    )


def _while_loop(body: Function, **mode: Any) -> Function:
    def loop(step: Function, carry: Any) -> Any:
        def once(carry: Any) -> Any:
            return carry[0] + 1, step(carry[1])

        return nnx.while_loop(lambda carry: carry[0] < 1, once, (0, carry), **mode)[1]

    return _in_loop(body, loop)


def _fori_loop(body: Function, **mode: Any) -> Function:
    return _in_loop(
        body, lambda step, carry: nnx.fori_loop(0, 1, lambda _, carry: step(carry), carry, **mode)
    )


def _in_loop(body: Function, loop: Function) -> Function:
    """Runs a body on what a loop carries: the objects, which the loop returns."""

    @functools.wraps(body)
    def step(objects: Any) -> Any:
        body(*objects)
        return objects

    return lambda *objects: loop(step, objects)


ALL = frozenset({1, 2, 3, 4, 5, 6, 7, 10, 11})

_RETURNS = "a loop returns its carry, of the same structure, not what the body returns"
_STRUCTURE = "the structure of a carry must stay"

TRANSFORMS = [
    Transform("jit", wrap=nnx.jit, method=nnx.jit, disagree=_two_shardings, laws=ALL),
    *(
        Transform(
            transform.__name__,
            wrap=_as_aux(transform),
            method=transform,
            disagree=_first_of_two(transform),
            laws=ALL,
        )
        for transform in (nnx.grad, nnx.value_and_grad)
    ),
    *(
        Transform(name, wrap=wrap, method=wrap, disagree=wrap, laws=ALL)
        for name, wrap in {
            "vmap": _vmap,
            "shard_map": _shard_map,
            "remat": nnx.remat,
            "checkify": _checkify,
            "cond": _cond,
            "switch": _switch,
            "vjp": _vjp,
            "jvp": _jvp,
            "custom_vjp": _custom_vjp,
            "scan": _scan,
            "while_loop": _while_loop,
            "fori_loop": _fori_loop,
        }.items()
    ),
]
