"""Marks: what of `flax.nnx` Weft leaves out or does in another way, by the names that programs use.

The entries are first cells of the table of behaviour in docs/differences.md.
"""

from __future__ import annotations

import fnmatch
import importlib
import types
from typing import NamedTuple


class Mark(NamedTuple):
    """A place in a program.

    Attributes:
      line: where, from 1.
      name: what is used.
      text: what about it.
      cell: in a notebook, in which cell, from 1.
    """

    line: int
    name: str
    text: str
    cell: int | None = None


LEFT_OUT = 'left out: see "Left out" in docs/differences.md'
ENTRIES: dict[str, str] = {
    "merge": "`merge`",
    "clone": "`clone`",
    "update": "`update` with paths that the object does not have, or with other shapes",
    "get_partition_spec": "`get_partition_spec` of a Variable without `out_sharding`",
    "as_abstract": "`as_abstract`",
    "capture": "`capture(f, ...)(x, model)`",
    "tabulate": "`tabulate`",
    "cached_partial": "`cached_partial`, `jit_partial`",
    "jit_partial": "`cached_partial`, `jit_partial`",
    "prefix": "`prefix`",
    "flatten": "`flatten(ref_index=)`, `unflatten(index_ref=)`",
    "unflatten": "`flatten(ref_index=)`, `unflatten(index_ref=)`",
    "iter_graph": "`iter_graph`",
    "logical_axis_rules": "Two `logical_axis_rules` for one name",
    "EMA": "`EMA` of bfloat16 and float16",
    "WeightNorm": "The scales of `WeightNorm`",
    "scan": "A broadcast Variable that the body of `scan` writes",
    "bridge.ToLinen": "`bridge.ToLinen` that draws from a stream for which Linen was given no key",
    "metrics.Accuracy": "`metrics.Accuracy` of logits of one column, without a threshold",
}
HIJAX = "`hijax=True`, `ref=True` (`Variable`, `var_defaults`, `with_vars`, `vars_as`)"
SETTINGS = (
    "a setting of flax says nothing to Weft: use its own, such as `nnx.set_graph_mode(False)`, "
    "`nnx.set_graph_updates(False)`, `nnx.use_eager_sharding(False)`"
)
TEXT = "a name in a text, which is not changed: write `weft` where it is imported by it"

TAKEN = "the program has a `weft` of its own, and whole names are written with that: rename it"


def text_of(name: str) -> str | None:
    """Returns what there is to say of a name, such as `merge` or `graphlib.IndexMap`."""
    if not _is_known(name):
        return LEFT_OUT
    found = [entry for pattern, entry in ENTRIES.items() if fnmatch.fnmatchcase(name, pattern)]
    return differs(found[0]) if found else None


def differs(entry: str) -> str:
    """Returns what is said of a use that behaves in another way."""
    return f'differs: see "{entry}" in docs/differences.md'


def _is_known(name: str) -> bool:
    """Says whether Weft has a name."""
    value: object = importlib.import_module("weft")
    for part in name.split("."):
        if not hasattr(value, part):
            if not isinstance(value, types.ModuleType):
                return True  # an attribute of an instance, for all that can be seen here
            try:
                importlib.import_module(f"{value.__name__}.{part}")
            except ModuleNotFoundError:
                return False
        value = getattr(value, part)
    return True
