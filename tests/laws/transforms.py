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
WHOLE = P()


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
      laws: the numbers of the laws that apply.
      method: `method(f, **mode)` transforms `f(x)`, a bound method that takes an array and returns
        a scalar; what the transformed function returns does not matter. For law 11.
      disagree: transforms a function of two objects such that these have different prefixes.
        For law 5.
      unless: names of cases that do not apply, each with the reason.
    """

    name: str
    wrap: Function
    laws: frozenset[int]
    method: Function | None = None
    disagree: Function | None = None
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


def _vmap(body: Function, in_axes: Any = None, axis_size: int = 1, **mode: Any) -> Function:
    return nnx.vmap(body, in_axes=in_axes, out_axes=None, axis_size=axis_size, **mode)


def _shard_map(body: Function, in_specs: Any = WHOLE, **mode: Any) -> Function:
    mesh = jax.make_mesh((1,), ("one",), axis_types=(jax.sharding.AxisType.Auto,))
    return nnx.shard_map(body, mesh=mesh, in_specs=in_specs, out_specs=WHOLE, **mode)


def _checkify(body: Function, **mode: Any) -> Function:
    checked = nnx.checkify(body, **mode)
    return lambda *objects: checked(*objects)[1]


def _eval_shape(body: Function, **mode: Any) -> Function:
    return lambda *objects: nnx.eval_shape(body, *objects, **mode)


def _cond(body: Function, **mode: Any) -> Function:
    return lambda *objects: nnx.cond(True, body, body, *objects, **mode)


def _switch(body: Function, **mode: Any) -> Function:
    return lambda *objects: nnx.switch(1, [body, body], *objects, **mode)


def _with_aux(body: Function) -> Function:
    return functools.wraps(body)(lambda *objects: (jnp.zeros(()), body(*objects)))


def _vjp(body: Function, **mode: Any) -> Function:
    return lambda *objects: nnx.vjp(_with_aux(body), *objects, has_aux=True, **mode)[2]


def _jvp(body: Function, **mode: Any) -> Function:
    def run(*objects: Any) -> Any:
        still: tuple[Any, ...] = tuple({} for _ in objects)
        return nnx.jvp(_with_aux(body), objects, still, has_aux=True, **mode)[2]

    return run


def _custom_vjp(body: Function, **mode: Any) -> Function:
    function = nnx.custom_vjp(body, **mode)
    function.defvjp(lambda *objects: (body(*objects), None), lambda residuals, cotangents: ())
    return function


def _scan(body: Function, **mode: Any) -> Function:
    carry = {"in_axes": nnx.Carry, "out_axes": nnx.Carry}
    return _carrying(body, lambda step: nnx.scan(step, length=1, **carry, **mode))


def _fori_loop(body: Function, **mode: Any) -> Function:
    def loop(step: Function) -> Function:
        def indexed(_: Any, m: Any) -> Any:
            return step(m)

        indexed.__qualname__ = body.__qualname__
        return lambda carry: nnx.fori_loop(0, 1, indexed, carry, **mode)

    return _carrying(body, loop)


def _while_loop(body: Function, **mode: Any) -> Function:
    def loop(step: Function) -> Function:
        once = functools.wraps(body)(lambda carry: (step(carry[0]), carry[1] + 1))
        return lambda carry: nnx.while_loop(lambda carry: carry[1] < 1, once, (carry, 0), **mode)

    return _carrying(body, loop)


def _carrying(body: Function, loop: Function) -> Function:
    """Runs a body on what a loop carries: its object, or all of them."""

    def run(*objects: Any) -> Any:
        carry = objects[0] if len(objects) == 1 else objects

        @functools.wraps(body)
        def step(carry: Any) -> Any:
            body(*(carry if len(objects) > 1 else (carry,)))
            return carry

        return loop(step)(carry)

    return run


ALL = frozenset({1, 2, 3, 4, 5, 6, 7, 10, 11})
CHEAP = ALL - {7}  # what leads to a new trace is decided by the lift, for all transforms alike

_NO_VALUES = {
    "captured read": "nothing is computed",
    "captured written by an inner transform": "nothing is written back",
    "result that cannot come out": "nothing is written back",
}
_CARRY = "the structure of a carry stays, and so does the place of each object"
_RETURNS = "a loop returns its carry, not what the body returns"
LOOP_UNLESS = {
    "returned input": _RETURNS,
    "swapped inputs": _RETURNS,
    "cycle": _RETURNS,
    "captured read": _RETURNS,
    "returned object is no output": _RETURNS,
    "only written variables are outputs": _RETURNS,
    "only changed arrays are outputs": _RETURNS,
    "new attribute": _CARRY,
    "new objects are shared as inside": _CARRY,
    "removed attribute": _CARRY,
    "rebound attribute": _CARRY,
    "static change": _CARRY,
    "dtype and shape change": _CARRY,
    "metadata change": _CARRY,
    "pytree valued variable": _CARRY,
    "attribute marks": _CARRY,
    "container append and replace": _CARRY,
    "one container at two places": _CARRY,
    "foreign pytrees changed in place": _CARRY,
}
_COUNT = "paths in the carry begin with its place beside the count"
LOOP = ALL - {5, 7, 11}

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
    Transform(
        "vmap",
        wrap=_vmap,
        method=_vmap,
        disagree=functools.partial(_vmap, in_axes=(0, None), axis_size=2),
        laws=CHEAP,
    ),
    Transform(
        "shard_map",
        wrap=_shard_map,
        method=_shard_map,
        disagree=functools.partial(_shard_map, in_specs=(P("one"), WHOLE)),
        laws=CHEAP,
        unless={"captured written by an inner transform": "JAX has no shard_map in itself"},
    ),
    Transform("remat", wrap=nnx.remat, method=nnx.remat, laws=CHEAP - {5}),
    Transform("eval_shape", wrap=_eval_shape, laws=frozenset({4, 6}), unless=_NO_VALUES),
    Transform("make_jaxpr", wrap=nnx.make_jaxpr, laws=frozenset({4, 6}), unless=_NO_VALUES),
    Transform("checkify", wrap=_checkify, method=_checkify, laws=CHEAP - {5}),
    Transform("cond", wrap=_cond, method=_cond, laws=CHEAP - {5}),
    Transform("switch", wrap=_switch, method=_switch, laws=CHEAP - {5}),
    Transform(
        "vjp",
        wrap=_vjp,
        method=lambda f, **mode: lambda x: nnx.vjp(f, x, **mode),
        laws=CHEAP - {5},
    ),
    Transform(
        "jvp",
        wrap=_jvp,
        method=lambda f, **mode: lambda x: nnx.jvp(f, (x,), (x,), **mode),
        laws=CHEAP - {5},
    ),
    Transform(
        "custom_vjp",
        wrap=_custom_vjp,
        method=_custom_vjp,
        laws=CHEAP - {5, 6},  # where nothing is differentiated JAX starts no trace
    ),
    Transform(
        "scan",
        wrap=_scan,
        disagree=lambda body: nnx.scan(body, in_axes=(0, None), out_axes=0),
        laws=LOOP | {5},
        unless=LOOP_UNLESS,
    ),
    Transform(
        "while_loop",
        wrap=_while_loop,
        laws=LOOP,
        unless=LOOP_UNLESS
        | dict.fromkeys(["shared reference", "a set of data is refused"], _COUNT),
    ),
    Transform("fori_loop", wrap=_fori_loop, laws=LOOP, unless=LOOP_UNLESS),
]
