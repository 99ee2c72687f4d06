"""The state of an optimizer: the Variables in it, and the trees that Optax is given.

Optax's transformations are pure functions on trees of arrays. Their *state* is kept as the tree
that Optax made, with a Variable around each array: an `OptVariable` where the array *mirrors* a
parameter (a moment, an average), an `OptArray` elsewhere (a count, a hyperparameter). Optax never
sees these Variables: parameters, gradients and state are handed to it as trees of arrays in one
*form* (see `FORMS`), the same at creation and at every update.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.tree_util as jtu

from weft._core.path import Path, format_path
from weft._graph import from_flat_state
from weft._variable.metadata import HOOKS, axis_names
from weft._variable.types import OptArray as OptArray
from weft._variable.types import OptState as OptState
from weft._variable.types import OptVariable as OptVariable
from weft._variable.variable import Variable, is_variable, raw_value
from weft.train.leaves import strip


def to_opt_state(tree: Any) -> Any:
    """Wraps the leaves of an Optax state in Variables of the optimizer types.

    Args:
      tree: a tree of arrays and Variables. A Variable stands for an array that mirrors a parameter.

    Returns:
      The same tree with an `OptVariable` of equal metadata for each Variable, and an `OptArray`
      for each other leaf. Hooks on the value are left out, since they are meant for the parameter,
      and so is `out_sharding` where the value has another rank than its names. The metadata
      `optimizer_sharding` of a parameter becomes the `out_sharding` here.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> boxed = nnx.optimizer.to_opt_state({"count": jnp.array(0), "mu": nnx.Param(jnp.zeros(2))})
      >>> [type(boxed[name]).__name__ for name in ("count", "mu")]
      ['OptArray', 'OptVariable']
    """

    def box(leaf: Any) -> Any:
        if not isinstance(leaf, Variable):
            return OptArray(leaf)
        value = leaf.get_raw_value()
        if not jax.tree.leaves(value):  # a hole that a mask left
            return value
        metadata = {k: v for k, v in leaf.get_metadata().items() if k not in HOOKS}
        if (own := metadata.pop("optimizer_sharding", None)) is not None:
            metadata["out_sharding"] = own
        names = metadata.get("out_sharding")
        if names is not None and len(axis_names(names)) != getattr(value, "ndim", None):
            del metadata["out_sharding"]
        return OptVariable(value, **metadata)

    return jax.tree.map(box, tree, is_leaf=is_variable)


# Masks and labels that users write for `optax.masked`, `optax.partition` and the like must have
# the structure of the tree that Optax is given, and they are written in three ways: with plain
# leaves over `nnx.state(model)`, over nested dicts, and by `jax.tree.map` over `nnx.state(model)`,
# which leaves the Variables in. So Optax is given the first form that the transformation accepts.
FORMS: dict[str, Callable[[Mapping[Path, Any], Mapping[Path, Any]], Any]] = {
    "state": lambda values, params: from_flat_state(dict(values)),
    "dict": lambda values, params: from_flat_state(values, cls=dict),
    "variables": lambda values, params: from_flat_state(
        {path: _copy_like(params[path], value) for path, value in values.items()}
    ),
}


def _copy_like(param: Any, value: Any) -> Any:
    """Returns a value as the parameter holds it: in a Variable like that one, or plain."""
    return param.copy(value) if isinstance(param, Variable) else value


def optax_promotion() -> contextlib.AbstractContextManager[None]:
    """Lets Optax mix dtypes, as its arithmetic does, where the user forbids it in their own."""
    return jax.numpy_dtype_promotion("standard")


def init_state(tx: Any, params: Mapping[Path, Any]) -> tuple[str, Any]:
    """Initialises a transformation.

    Args:
      tx: an Optax transformation.
      params: the parameters by path, Variables or arrays.

    Returns:
      The name of the first form that `tx` accepts, and its state as a tree of `OptArray` and
      `OptVariable`.

    Raises:
      Exception: what `tx` raised for the first form, if it accepts none.
    """
    values = {path: raw_value(leaf) for path, leaf in params.items()}
    try:
        form, made = _init_in_first_form(tx, list(FORMS), values, params)
    except _REFUSALS as error:
        error.add_note(
            "The Optax transformation accepts the parameters neither as a State nor as nested "
            "dicts. If it has a mask or labels, make them from the same parameters: "
            "`nnx.map_state(lambda path, p: 'decay' if p.ndim > 1 else 'plain', "
            "nnx.state(model, nnx.Param))`. The parameters are: "
            + ", ".join(map(format_path, params))
        )
        raise
    made = jax.tree.map(_strongly_typed, strip(made))
    return form, to_opt_state(_mark_mirrors(made, params))


_REFUSALS = (TypeError, ValueError, KeyError, AttributeError)


def _init_in_first_form(
    tx: Any, forms: list[str], values: Mapping[Path, Any], params: Mapping[Path, Any]
) -> tuple[str, Any]:
    form, *others = forms
    try:
        with optax_promotion():
            return form, tx.init(FORMS[form](values, params))
    except _REFUSALS:  # kept in no variable: an error refers to this frame, and so to the arrays
        if others:
            with contextlib.suppress(*_REFUSALS):
                return _init_in_first_form(tx, others, values, params)
        raise


def _strongly_typed(x: Any) -> Any:
    """Returns an array as an update leaves it: not weakly typed, or the first two steps differ."""
    return jax.lax.convert_element_type(x, x.dtype) if getattr(x, "weak_type", False) else x


def _mark_mirrors(plain: Any, params: Mapping[Path, Any]) -> Any:
    """Returns the state with a Variable like the parameter around each array that mirrors one.

    A leaf mirrors a parameter if its path ends in mapping keys that are the parameter's path.
    """

    def mark(entries: tuple[Any, ...], leaf: Any) -> Any:
        keys = _keys_at_end(entries)
        for start in range(len(keys)):
            if keys[start:] in params:
                return _copy_like(params[keys[start:]], leaf)
        return leaf

    return jtu.tree_map_with_path(mark, plain)


def _keys_at_end(entries: tuple[Any, ...]) -> Path:
    """Returns the mapping keys in which a path into a state ends."""
    keys: Path = ()
    for entry in reversed(entries):
        if not isinstance(entry, jtu.DictKey):
            break
        keys = (entry.key, *keys)
    return keys


def changes_since(old: Any, tx: Any, params: Any) -> list[str]:
    """Lists how parameters differ from those that a state was made for, as far as it mirrors them.

    Args:
      old: the state.
      tx: the transformation.
      params: the parameters as they are now, in the form that `tx` takes.
    """
    shapes: list[dict[Path, Any]] = [{}, {}]
    for tree, found in zip((old, strip(jax.eval_shape(tx.init, params))), shapes, strict=True):
        for entries, leaf in jtu.tree_leaves_with_path(tree):
            if keys := _keys_at_end(entries):
                found[keys] = leaf.shape
    then, now = shapes
    changes = [f"new: {format_path(path)}" for path in now if path not in then]
    changes += [f"gone: {format_path(path)}" for path in then if path not in now]
    changes += [
        f"{format_path(path)}: shape {then[path]} then, {shape} now"
        for path, shape in now.items()
        if then.get(path, shape) != shape
    ]
    return changes
