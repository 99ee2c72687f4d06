"""Groups of parameters: an Optax transformation for each, chosen by filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.tree_util as jtu
import optax

from weft._core.filters import Filter, filter_text, to_predicate
from weft._core.path import Path, format_path, key_of_entry
from weft._graph import state, to_flat_state

Groups = Sequence[tuple[Filter, optax.GradientTransformation]]


def partition(model: Any, wrt: Filter, groups: Groups) -> optax.GradientTransformationExtraArgs:
    """Returns `optax.partition` of a model's parameters by filters.

    Args:
      model: the model.
      wrt: the filter that selects the parameters.
      groups: filters, each with its transformation; of those that select a parameter the first
        has it.

    Raises:
      TypeError: if `groups` are no such pairs.
      ValueError: if a filter selects nothing that is left, or a parameter is in no group.
    """
    if not all(map(_is_group, groups)):
        raise TypeError(
            f"groups are pairs of a filter and an Optax transformation, found {groups!r}: write "
            "`[(nnx.PathContains('bias'), optax.sgd(0.1)), (..., optax.adamw(1e-3))]`"
        )
    predicates = [to_predicate(filter) for filter, _ in groups]
    labels: dict[Path, str] = {}
    alone = []
    for path, leaf in to_flat_state(state(model, wrt)):
        chosen = (i for i, predicate in enumerate(predicates) if predicate(path, leaf))
        label = next(chosen, None)
        if label is None:
            alone.append(format_path(path))
        labels[path] = str(label)
    if alone:
        raise ValueError(
            f"no group has {', '.join(alone)}: end the groups with `(..., optax.adamw(1e-3))`, "
            "which has the rest, or leave them out of training, `frozen=`"
        )
    for i, (filter, _) in enumerate(groups):
        if str(i) not in labels.values():
            raise ValueError(
                f"the group of {filter_text(filter)} has no parameter: the groups before it have "
                f"them, or no path fits; there are {', '.join(map(format_path, labels))}"
            )

    def labels_of(params: Any) -> Any:
        return jtu.tree_map_with_path(lambda entries, _: _label(labels, entries), params)

    return optax.partition({str(i): tx for i, (_, tx) in enumerate(groups)}, labels_of)


def _is_group(pair: Any) -> bool:
    """Says whether something is a pair with a transformation, which is a pair of functions."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    is_alone = isinstance(pair, optax.GradientTransformation)
    return not is_alone and callable(getattr(pair[1], "update", None))


def _label(labels: dict[Path, str], entries: Sequence[Any]) -> str:
    """Returns the label of a leaf, which may lie within the value of one Variable."""
    path = tuple(map(key_of_entry, entries))
    while path not in labels:
        path = path[:-1]
    return labels[path]
