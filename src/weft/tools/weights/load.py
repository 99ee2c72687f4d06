"""Loading weights: all that are in a plan go into a model, or nothing does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.errors import StructureError
from weft._core.tracebacks import boundary
from weft._object.pytree import Pytree
from weft._variable.variable import Variable
from weft.tools.weights.fill import fill, read
from weft.tools.weights.layout import Layout, Slot, text_of
from weft.tools.weights.links import Link
from weft.tools.weights.plan import Plan, Planner
from weft.tools.weights.report import (
    MISFIT,
    MISSING,
    UNEXPECTED,
    WRONG,
    WeightReport,
    WeightRow,
    faults,
)
from weft.tools.weights.rules import Rule, Rules, parse_rules
from weft.tools.weights.source import Source, open_source


@boundary
def load_weights(
    model: Any,
    source: str | os.PathLike[str] | Mapping[Any, Any],
    rules: Rules | None = None,
    *,
    dtype: Any = None,
    strict: bool = True,
    dry_run: bool = False,
) -> WeightReport:
    """Writes weights of others into a model, in place: all of them or nothing.

    Without rules the names are PyTorch's: those of the attributes, joined by dots, with `weight`,
    `bias`, `running_mean`, ... as each layer declares in `torch_weights`, and every array is turned
    into the layout that the layer has. Rules lead from other names to paths of the model:

    | rule | |
    | --- | --- |
    | `"h.{i}.ln_1": "blocks[{i}].norm"` | a layer, with all that is in it, or an array |
    | `"h.{i}.qkv": ["blocks[{i}].q", "blocks[{i}].k", "blocks[{i}].v"]` | one is split in three |
    | `("q", "k", "v"): "qkv"` | three are joined to one |
    | `"fc.weight": nnx.Into("fc.kernel", axes=(1, 0))` | how is said by `nnx.Into` |
    | `"h.{i}.attn.masked_bias": None` | the name is left out |
    | `None: "head"` | the layer stays as it is |

    The first rule that matches a name counts. Names that none matches are taken as PyTorch's.
    Layers of an `nnx.Stack` are addressed as those of a list, `blocks[{i}]`.

    Weights are read one after another, and placed as those that they replace; in an abstract model
    (`nnx.eval_shape`) as the sharding metadata of the Variables say, on the mesh of
    `jax.set_mesh`. So the model is in memory once, and beside it one of its Variables at a time.

    Args:
      model: an object or a container of objects; concrete, abstract or sharded.
      source: a safetensors file, an index of several or a folder with either, a file of PyTorch
        (as `nnx.load` reads it), or a mapping of arrays, such as a state dict.
      rules: names or tuples of names, and by them paths of the model, lists of such, `nnx.Into`s,
        or None; a mapping, or pairs.
      dtype: what floats become; None for the dtypes that the model has.
      strict: whether all parameters and statistics of the model must be in the source, and all of
        that in the model. Rules must match in any case, and shapes fit.
      dry_run: whether to write nothing, and not to raise for what does not fit.

    Returns:
      A report, which prints as a table: what goes where and how, and what does not fit.

    Raises:
      StructureError: if it does not fit; lists everything, and names that are near.
      CheckpointError: if a file is damaged, or holds more than weights.
      TypeError: if `source` or a rule is of another type.
      ValueError: for rules whose variables do not fit.
      OSError: if a file cannot be read.

    Example:
      >>> import numpy as np
      >>> import weft as nnx
      >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
      >>> source = {"fc.weight": np.ones((3, 2), np.float32), "fc.bias": np.ones(3, np.float32)}
      >>> nnx.load_weights(model, source, {"fc": "layers[0]"})
      the mapping: 2 matched
               source     target            shape  dtype
      matched  fc.weight  layers[0].kernel  3, 2   float32  axes (1, 0)
      matched  fc.bias    layers[0].bias    3      float32  as is
      >>> float(model(np.ones((1, 2), np.float32))[0, 0])
      3.0
    """
    _check_dtype(dtype)
    parsed = parse_rules(rules)
    opened = open_source(source)
    layout = Layout(model)
    _check_model(model, layout)
    planner = Planner(layout, opened.avals, parsed, dtype)
    plan = planner.plan()
    _check_twice(plan, opened)
    report = WeightReport(opened.where, plan.rows)
    if dry_run:
        return report
    refused = (WRONG, MISFIT, *((MISSING, UNEXPECTED) if strict else ()))
    if report.of_kind(*refused):
        raise StructureError(
            _message(report, refused) + _remedies(plan, layout, report, refused, parsed)
        )
    fill(model, plan.links, opened, planner.dtype_of)
    return report


def _check_dtype(dtype: Any) -> None:
    try:
        is_float = dtype is None or jnp.issubdtype(dtype, jnp.floating)
        found = f"{np.dtype(dtype)}" if dtype is not None else ""
    except TypeError:
        is_float, found = False, repr(dtype)
    if not is_float:
        raise TypeError(
            f"dtype is what floats become, found {found}: `dtype=jnp.bfloat16`, or leave it out "
            "for the dtypes of the model"
        ) from None
    if dtype is not None and jax.dtypes.canonicalize_dtype(dtype) != np.dtype(dtype):
        raise TypeError(
            f"dtype={found} is not there: JAX has it after "
            '`jax.config.update("jax_enable_x64", True)`'
        )


def _check_model(model: Any, layout: Layout) -> None:
    kinds = (Pytree, Variable, Mapping, Sequence)
    if not layout.slots and (not isinstance(model, kinds) or isinstance(model, (str, bytes))):
        found = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise TypeError(
            f"weights are loaded into a model, found {found}: make it first, "
            "`model = Model(rngs=nnx.Rngs(0))`, or without values, `nnx.eval_shape(Model)`"
        )


def _message(report: WeightReport, refused: tuple[str, ...]) -> str:
    rows = report.of_kind(*refused)
    return f"{report.where} does not fit the model, and nothing was written:\n{faults(rows)}\n"


def _remedies(
    plan: Plan, layout: Layout, report: WeightReport, refused: tuple[str, ...], rules: list[Rule]
) -> str:
    text = "look at `nnx.load_weights(..., dry_run=True)`"
    if left := _left_out(plan.misfits, layout):
        text += (
            "; where the model is to keep what it has, as for a head of another size, "
            + ("put before the other rules " if rules else "write the rules ")
            + f"`{left}`"
        )
    if {MISSING, UNEXPECTED} & {row.kind for row in report.of_kind(*refused)}:
        text += (
            "; say by `rules=` which name is which path, `{'h.{i}.ln_1': 'blocks[{i}].norm'}`, or "
            "None for what is to be left out; or `strict=False` takes what is in both"
        )
    return text


def _left_out(misfits: list[Link], layout: Layout) -> str:
    """Returns rules that leave out a few arrays that do not fit; empty where there are many."""
    pairs: dict[str, str] = {}
    keys = {slot.key for link in misfits for slot in link.slots}
    for link in misfits:
        if len(link.slots) > 1 or len(link.sources) > 1:
            return ""
        (slot,), (name,) = link.slots, link.sources
        layer, start = slot.address[:-1], str(name).rpartition(".")[0]
        inside = [x for x in layout.wanted.values() if x.address[: len(layer)] == layer]
        if layer and start and all(x.key in keys for x in inside):  # all that the layer has
            pairs[start] = text_of(layer)
        else:
            pairs[str(name)] = str(slot)
    if not 1 <= len(pairs) <= 2:
        return ""
    targets = list(pairs.values())
    return repr({**dict.fromkeys(pairs), None: targets if len(targets) > 1 else targets[0]})


def _check_twice(plan: Plan, source: Source) -> None:
    """Notes weights that two names lead to, unless they are equal, as those of tied layers are."""
    for first, other, slot in plan.twice:
        pair = [read(link, source)[link.slots.index(_same(link, slot))] for link in (first, other)]
        other_name, first_name = (", ".join(map(str, x.sources)) for x in (other, first))
        if not _are_equal(pair[0], pair[1]):
            note = f"{first_name!r} leads there as well, and is not equal: leave out one, to None"
            row = WeightRow(WRONG, other_name, str(slot), "", "", note)
            plan.rows.append(row)
        else:
            plan.links = [link for link in plan.links if link is not other]


def _are_equal(x: np.ndarray, y: np.ndarray) -> bool:
    """Says whether arrays have equal elements, NaN as well."""
    return x.shape == y.shape and bool(np.all((x == y) | ((x != x) & (y != y))))


def _same(link: Link, slot: Slot) -> Slot:
    return next(own for own in link.slots if own.key == slot.key)
