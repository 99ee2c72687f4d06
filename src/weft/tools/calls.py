"""Recording the calls of a model's parts, and what they cost.

A *recording* traces one call of a model abstractly: nothing is computed, and the model stays as it
is. Each *recorded call* keeps the part with its arguments taken apart, so that the call can be
compiled on its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from weft._core.path import Path
from weft._core.types import ARRAY_TYPES
from weft._graph.api import build, take_apart
from weft._graph.iterate import iter_graph
from weft._graph.records import GraphDef
from weft._module import Pytree
from weft._module.containers import Dict
from weft._module.observe import observing, original_class
from weft._object.pytree import attributes
from weft._variable.variable import Variable, raw_value

_PLACE = "_place"


class Place:
    """Where an observed object is in the model. A new one is equal to no other.

    That keeps the tracing caches of functions inside the model from answering for a call that is
    to be recorded.
    """

    def __init__(self, path: Path):
        self.path = path


class Parts(NamedTuple):
    """Something taken apart: its structure, and the values of its leaves in two lists."""

    graphdef: GraphDef
    treedef: Any
    arrays: list[jax.ShapeDtypeStruct]
    others: list[Any]

    def build(self, arrays: list[Any]) -> Any:
        """Puts it together around other arrays."""
        remaining = iter(arrays)
        leaves = [next(remaining) if x is _HOLE else x for x in self.others]
        values = jax.tree.unflatten(self.treedef, leaves)
        return build(self.graphdef, values)


_HOLE = object()


def take_parts(value: Any) -> Parts:
    """Takes an object or a container of objects apart, with abstract arrays."""
    content = take_apart(value)
    raws = list(map(raw_value, content.leaves))
    leaves, treedef = jax.tree.flatten(raws)
    arrays = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves if isinstance(x, ARRAY_TYPES)]
    others = [_HOLE if isinstance(x, ARRAY_TYPES) else x for x in leaves]
    return Parts(content.graphdef, treedef, arrays, others)


class RecordedCall(NamedTuple):
    """One call of a method of one part of a model.

    Attributes:
      path: where the part is in the model.
      type: its class.
      method: the method's name.
      inputs: `(args, kwargs)`, arrays abstract.
      output: what was returned, arrays abstract.
      parts: `(part, args, kwargs)` taken apart, if that was asked for.
    """

    path: Path
    type: type
    method: str
    inputs: Any
    output: Any
    parts: Parts | None


def record_calls(
    model: Pytree, method: str, args: tuple, kwargs: dict, *, with_parts: bool = True
) -> list[RecordedCall]:
    """Traces a call of a method abstractly, and lists the calls of all parts in their order.

    Args:
      model: the model; abstract arrays will do.
      method: the method's name. Of the parts, calls of this method and of `__call__` are listed.
      args: arguments; arrays may be abstract, other values are handed on as they are.
      kwargs: keyword arguments.
      with_parts: whether to take the part and the arguments of each call apart.
    """
    parts = take_parts((model, args, kwargs))
    calls: list[RecordedCall | None] = []

    def observe(
        part: Any, name: str, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        if name not in ("__call__", method):
            return call(*args, **kwargs)
        position = len(calls)
        calls.append(None)  # calls are listed as they begin, and known when they end
        whole = take_parts((part, args, kwargs)) if with_parts else None
        inputs = _abstract((args, kwargs))
        place = attributes(part)[_PLACE]
        output = call(*args, **kwargs)
        calls[position] = RecordedCall(
            place.path, original_class(type(part)), name, inputs, _abstract(output), whole
        )
        return output

    def run(arrays: list[Any]) -> None:
        model, args, kwargs = parts.build(arrays)
        observed = []
        for path, part in iter_graph(model):
            if isinstance(part, Pytree) and not isinstance(part, Dict):
                setattr(part, _PLACE, Place(path))
                observed.append(part)
        with observing(observed, observe):
            getattr(model, method)(*args, **kwargs)

    jax.eval_shape(run, parts.arrays)
    return [call for call in calls if call is not None]


def _abstract(tree: Any) -> Any:
    """Replaces arrays by ShapeDtypeStructs, and objects by their classes."""
    return jax.tree.map(_abstract_leaf, tree, is_leaf=lambda x: isinstance(x, (Pytree, Variable)))


def _abstract_leaf(x: Any) -> Any:
    if isinstance(x, Variable):
        return jax.tree.map(_abstract_leaf, x.get_raw_value())
    if isinstance(x, Pytree):
        return original_class(type(x))
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, ARRAY_TYPES) else x


def _run(call: RecordedCall, arrays: list[Any]) -> list[Any]:
    assert call.parts is not None
    part, args, kwargs = call.parts.build(arrays)
    output = getattr(part, call.method)(*args, **kwargs)
    return [x for x in jax.tree.leaves(output) if isinstance(x, ARRAY_TYPES)]


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _run_vjp(call: RecordedCall, arrays: list[Any]) -> Any:
    def floats_to_floats(floats: list[Any]) -> list[Any]:
        remaining = iter(floats)
        return list(
            filter(_is_float, _run(call, [next(remaining) if _is_float(x) else x for x in arrays]))
        )

    output, pull_back = jax.vjp(floats_to_floats, list(filter(_is_float, arrays)))
    return output, pull_back(jax.tree.map(jnp.ones_like, output))


def flops(call: RecordedCall, *, vjp: bool = False) -> int | None:
    """Compiles a recorded call and counts its floating point operations.

    Args:
      call: the call.
      vjp: whether to count the call and its vector-Jacobian product.

    Returns:
      The compiler's count, None where it gives none or the call needs what is around it, such
      as a named axis.
    """
    function: Callable[..., Any] = functools.partial(_run_vjp if vjp else _run, call)
    assert call.parts is not None
    try:
        analysis = jax.jit(function).lower(call.parts.arrays).compile().cost_analysis()
    except NameError:  # an axis name that only the caller binds
        return None
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    count = (analysis or {}).get("flops")
    return None if count is None else int(count)
