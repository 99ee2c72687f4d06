"""`tabulate`: a table of a model's parts with their shapes, sizes and costs.

A *row* stands for one call of one part. A *group* is a kind of Variables that is counted in a
column of its own: the class directly below `Variable`, so that RngKey and RngCount count together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from weft._core.path import Path
from weft._core.text import count_text
from weft._core.types import ARRAY_TYPES
from weft._graph.iterate import iter_graph
from weft._graph.tally import Sizes, own_leaves, tally
from weft._module import Pytree
from weft._rng import Rngs, RngStream
from weft._variable.types import Param
from weft._variable.variable import Variable, raw_value
from weft.tools.calls import RecordedCall, flops, record_calls
from weft.tools.table import draw

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_ARRAYS = "arrays"


@dataclasses.dataclass(frozen=True)
class CallInfo:
    """One call, as `row_filter` sees it.

    Attributes:
      call_order: which call it is.
      object_id: equal for calls of the same part.
      type: the part's class.
      path: where it is in the model.
      inputs_repr: its inputs, in words.
      outputs: its outputs, arrays abstract.
      flops: floating point operations of the call, None if they were not asked for.
      vjp_flops: those of the call and its vector-Jacobian product, likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> paths = []
      >>> table = nnx.tabulate(
      ...     model, jnp.ones((1, 2)), row_filter=lambda row: paths.append(row.path) or True
      ... )
      >>> paths
      [(), ('layers', 0)]
    """

    call_order: int
    object_id: int
    type: type
    path: Path
    inputs_repr: str
    outputs: Any
    flops: int | None
    vjp_flops: int | None


def filter_rng_streams(row: CallInfo) -> bool:
    """Returns whether a row is to be shown by default: random streams are not.

    Example:
      >>> import weft as nnx
      >>> row = nnx.summary.CallInfo(0, 0, nnx.RngStream, ("rngs",), "", None, None, None)
      >>> nnx.summary.filter_rng_streams(row)
      False
    """
    return not issubclass(row.type, (Rngs, RngStream))


def tabulate(
    obj: Any,
    *input_args: Any,
    depth: int | None = None,
    method: str = "__call__",
    row_filter: Callable[[CallInfo], bool] = filter_rng_streams,
    table_kwargs: Mapping[str, Any] = _NO_OPTIONS,
    column_kwargs: Mapping[str, Any] = _NO_OPTIONS,
    console_kwargs: Mapping[str, Any] = _NO_OPTIONS,
    compute_flops: bool = False,
    compute_vjp_flops: bool = False,
    **input_kwargs: Any,
) -> str:
    """Writes a table of the parts that a call of a model goes through.

    The call is traced, not computed, and the model stays as it is: model and inputs may be
    abstract. Each row has path and class of a part, shapes of its inputs and outputs, and how
    many elements and bytes of Variables of each kind it holds. The last line counts parameters
    alone: each `Param` once, and no statistics, random streams or caches.

    Args:
      obj: a Module, or another object of Weft.
      *input_args: arguments of the call: arrays, `jax.ShapeDtypeStruct`s or other values.
      depth: how many levels of the model to show; all if None.
      method: the method to call.
      row_filter: says of each call whether to show it.
      table_kwargs: arguments of `rich.table.Table`; without rich a plainer table is drawn.
      column_kwargs: arguments of `rich.table.Table.add_column`.
      console_kwargs: arguments of `rich.console.Console`.
      compute_flops: whether to add the floating point operations of each call, by the analysis of
        the compiled program.
      compute_vjp_flops: whether to add those of the call with its vector-Jacobian product.
      **input_kwargs: keyword arguments of the call.

    Returns:
      The table as text.

    Raises:
      TypeError: if `obj` has no such method, or is no object of Weft.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> table = nnx.tabulate(model, jax.ShapeDtypeStruct((1, 2), jnp.float32))
      >>> "float32[1,3]" in table, "9 (36 B)" in table
      (True, True)
    """
    if not isinstance(obj, Pytree) or not callable(getattr(obj, method, None)):
        raise TypeError(
            f"tabulate expects a Module with a method {method!r}, found a {type(obj).__name__}: "
            "`nnx.tabulate(model, x)`; a list of layers becomes a model by `nnx.Sequential(layers)`"
        )
    objects = dict(iter_graph(obj))
    headers = ["path", "type", "inputs", "outputs"]
    headers += ["flops"] * compute_flops + ["vjp_flops"] * compute_vjp_flops
    rows = []
    calls = record_calls(
        obj, method, input_args, input_kwargs, with_parts=compute_flops or compute_vjp_flops
    )
    for i, call in enumerate(calls):
        info = CallInfo(
            call_order=i,
            object_id=id(objects[call.path]),
            type=call.type,
            path=call.path,
            inputs_repr="\n".join(_inputs_text(call)),
            outputs=call.output,
            flops=flops(call) if compute_flops else None,
            vjp_flops=flops(call, vjp=True) if compute_vjp_flops else None,
        )
        if (depth is None or len(call.path) <= depth) and row_filter(info):
            rows.append(info)
    sizes = tally(obj, _group)
    totals = sizes[id(obj)]
    groups = sorted(totals)
    own = own_leaves(obj)
    parts = [id(objects[info.path]) for info in rows]
    cells = [
        _cells(info, sizes[part], own[part], headers, groups)
        for info, part in zip(rows, parts, strict=True)
    ]
    footer = ["", "", "", "Total", *[""] * (len(headers) - 4)]
    cells.append([*footer, *(count_text(*totals[group]) for group in groups)])
    return draw(
        f"{type(obj).__name__} Summary",
        [*headers, *groups],
        cells,
        f"Total Parameters: {count_text(*totals.get(Param.__name__, (0, 0)))}",
        table_options=table_kwargs,
        column_options=column_kwargs,
        console_options=console_kwargs,
    )


def _cells(
    info: CallInfo,
    totals: Sizes,
    own: list[tuple[Path, Any]],
    headers: list[str],
    groups: list[str],
) -> list[str]:
    path = "/".join(map(str, info.path))
    cells = [path, info.type.__name__, info.inputs_repr, "\n".join(_lines(info.outputs))]
    if "flops" in headers:
        cells.append("" if info.flops is None else f"{info.flops:,}")
    if "vjp_flops" in headers:
        cells.append("" if info.vjp_flops is None else f"{info.vjp_flops:,}")
    lines_of = _by_group(own)
    for group in groups:
        lines = lines_of.get(group, [])
        total = [count_text(*totals[group])] if group in totals else []
        cells.append("\n".join([*lines, "", *total] if lines else total))
    return cells


# -- Variables
def _group(value: Any) -> str:
    if not isinstance(value, Variable):
        return _ARRAYS
    bases = [base for base in type(value).__mro__ if issubclass(base, Variable)]
    return bases[max(len(bases) - 2, 0)].__name__


def _by_group(leaves: list[tuple[Path, Any]]) -> dict[str, list[str]]:
    """Describes Variables and arrays, by group."""
    lines: dict[str, list[str]] = {}
    for path, value in leaves:
        raw = raw_value(value)
        name = "/".join(map(str, path))
        lines.setdefault(_group(value), []).extend(_labelled(name, list(_lines(raw))))
    return lines


# -- words
def _inputs_text(call: RecordedCall) -> list[str]:
    args, kwargs = call.inputs
    if len(args) == 1 and not kwargs:
        return list(_lines(args[0]))
    texts = [text for arg in args for text in _labelled("-", list(_lines(arg)))]
    named = (text for k, v in kwargs.items() for text in _labelled(f"{k}:", list(_lines(v))))
    return [*texts, *named]


def _labelled(label: str, lines: list[str]) -> list[str]:
    label = label if label.endswith((":", "-")) else f"{label}:"
    if len(lines) == 1:
        return [f"{label} {lines[0]}"]
    return [label, *(f"  {line}" for line in lines)]


def _lines(value: Any) -> Iterable[str]:
    """Describes a tree of abstract arrays, one line per leaf."""
    if isinstance(value, ARRAY_TYPES):
        return [f"{value.dtype}[{','.join(map(str, value.shape))}]"]
    if isinstance(value, type):
        return [value.__name__]
    if isinstance(value, Mapping) and value:
        return [t for k, v in value.items() for t in _labelled(f"{k}:", list(_lines(v)))]
    if isinstance(value, tuple) and hasattr(type(value), "_fields"):
        return _lines(value._asdict())  # type: ignore[attr-defined]
    if isinstance(value, (list, tuple)) and value:
        return [text for item in value for text in _labelled("-", list(_lines(item)))]
    text = repr(value)
    return [text if len(text) <= 60 else text[:57] + "..."]
