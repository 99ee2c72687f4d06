"""Loading weights: all that are in a plan go into a model, or nothing does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from weft._core.errors import StructureError
from weft._core.tracebacks import boundary
from weft.tools.weights.fill import fill, read
from weft.tools.weights.layout import Layout, Slot
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
from weft.tools.weights.rules import Rules, parse_rules
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
    if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"dtype is what floats become, found {np.dtype(dtype)}: `dtype=jnp.bfloat16`, or leave "
            "it out for the dtypes of the model"
        )
    parsed = parse_rules(rules)
    opened = open_source(source)
    layout = Layout(model)
    planner = Planner(layout, opened.avals, parsed, dtype)
    plan = planner.plan()
    _check_twice(plan, opened)
    report = WeightReport(opened.where, plan.rows)
    if dry_run:
        return report
    refused = (WRONG, MISFIT, *((MISSING, UNEXPECTED) if strict else ()))
    if report.of_kind(*refused):
        raise StructureError(_message(report, refused, strict, bool(parsed)))
    fill(model, plan.links, opened, planner.dtype_of)
    return report


def _message(report: WeightReport, refused: tuple[str, ...], strict: bool, has_rules: bool) -> str:
    rows = report.of_kind(*refused)
    text = f"{report.where} does not fit the model, and nothing was written:\n{faults(rows)}\n"
    text += "look at `nnx.load_weights(..., dry_run=True)`"
    if any(row.kind in (MISSING, UNEXPECTED) for row in rows):
        text += (
            "; say by `rules=` which name is which path, `{'h.{i}.ln_1': 'blocks[{i}].norm'}`, or "
            "None for what is to be left out; or `strict=False` takes what is in both"
        )
    return text


def _check_twice(plan: Plan, source: Source) -> None:
    """Notes weights that two names lead to, unless they are equal, as those of tied layers are."""
    for first, other, slot in plan.twice:
        pair = [read(link, source)[link.slots.index(_same(link, slot))] for link in (first, other)]
        other_name, first_name = (", ".join(map(str, x.sources)) for x in (other, first))
        if not np.array_equal(pair[0], pair[1]):
            note = f"{first_name!r} leads there as well, and is not equal: leave out one, to None"
            row = WeightRow(WRONG, other_name, str(slot), "", "", note)
            plan.rows.append(row)
        else:
            plan.links = [link for link in plan.links if link is not other]


def _same(link: Link, slot: Slot) -> Slot:
    return next(own for own in link.slots if own.key == slot.key)
