"""Optimizers: an Optax transformation whose state lives in Variables, and updates in place."""

from __future__ import annotations

import itertools
import types
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jax.core import Tracer

from weft._core.errors import StructureError
from weft._core.filters import Filter, filter_text
from weft._core.foreign_names import OPTIMIZER, give_hints
from weft._core.path import Path, format_path
from weft._core.types import MISSING
from weft._graph import FlatState, State, from_flat_state, state, to_flat_state
from weft._graph import update as write
from weft._module import Pytree, data
from weft._variable.types import Param
from weft._variable.variable import Variable, is_variable, raw_value
from weft.train.leaves import by_path, strip
from weft.train.opt_state import (
    FORMS,
    OptArray,
    OptState,
    OptVariable,
    changes_since,
    init_state,
    optax_promotion,
    to_opt_state,
)

__all__ = [
    "ModelAndOptimizer",
    "OptArray",
    "OptState",
    "OptVariable",
    "Optimizer",
    "to_opt_state",
]

M = TypeVar("M")


class Optimizer(Pytree, Generic[M]):
    """Updates the parameters of a model in place with an Optax transformation.

    Parameters are Variables, and arrays that no Variable holds where `wrt` selects these.

    Attributes:
      step: the number of updates made, a `uint32` scalar in an `OptState`.
      tx: the transformation.
      opt_state: the transformation's state, Optax's tree with `OptArray` and `OptVariable` leaves.
      wrt: the filter that selects what is optimized.

    Args:
      model: the model whose Variables are optimized; it is not kept.
      tx: any Optax transformation, `optax.MultiSteps` included.
      wrt: a filter that selects the Variables to optimize, mostly `nnx.Param`.
      graph: False to refuse shared references in the model; None for the setting.

    Raises:
      TypeError: without `wrt`, or if `tx` is no transformation.
      ValueError: if `wrt` selects nothing.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
      >>> grads = nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model)
      >>> updates = optimizer.update(model, grads)
      >>> int(optimizer.step[...]), updates["bias"].shape
      (1, (1,))
    """

    def __init__(
        self,
        model: M,
        tx: optax.GradientTransformation | optax.MultiSteps,
        *,
        wrt: Filter = MISSING,  # type: ignore[assignment]
        graph: bool | None = None,
    ):
        if wrt is MISSING:
            raise TypeError(
                "Optimizer needs `wrt`, the filter that selects what to optimize: write "
                "`nnx.Optimizer(model, tx, wrt=nnx.Param)`, or `nnx.ModelAndOptimizer(model, tx)` "
                "to keep the model inside the optimizer"
            )
        if not _is_transformation(tx):
            raise TypeError(_no_transformation(tx, model))
        self.graph = graph
        self.step = OptState(jnp.array(0, dtype=jnp.uint32))
        self.tx = tx
        self.wrt = wrt
        self.form, opt_state = init_state(tx, self._params(model))
        self.opt_state = data(opt_state)

    def update(self, model: M, grads: Any = MISSING, /, **kwargs: Any) -> State:
        """Makes one step: writes new parameters into `model` and the new state into `self`.

        Parameters keep their dtype and sharding. If anything is wrong, nothing is written.

        Args:
          model: the model, of the structure that the optimizer was made for.
          grads: the gradients, as `nnx.grad` returns them: a State, a Module, or a nested mapping
            of arrays. Gradients of Variables that `wrt` does not select are left out.
          **kwargs: further arguments for the transformation (`value=`, `grad=`, `value_fn=`, ...);
            those that are trees over the parameters are converted as `grads` is.

        Returns:
          The updates that were added to the parameters, a State of arrays.

        Raises:
          TypeError: if one of the two arguments is missing, or they are swapped.
          StructureError: if gradients or optimizer state do not fit the parameters, as where the
            model was changed after the optimizer was made; it names paths.
        """
        if grads is MISSING:
            raise TypeError(
                "Optimizer.update needs the model and the gradients: write "
                "`optimizer.update(model, grads)`; a `nnx.ModelAndOptimizer` keeps the model and "
                "takes `optimizer.update(grads)`"
            )
        if isinstance(model, (State, dict)) and isinstance(grads, Pytree):
            raise TypeError(
                f"Optimizer.update was given a {type(model).__name__} as the model and a "
                f"{type(grads).__name__} as the gradients: write `optimizer.update(model, grads)`, "
                "in this order"
            )
        if not isinstance(grads, (State, Mapping, Pytree)):
            raise TypeError(_no_gradients(grads))
        params = self._params(model)
        values = {path: raw_value(leaf) for path, leaf in params.items()}
        grads = self._values(grads)
        self._check_fit(grads, values, model)

        def build(leaves: Mapping[Path, Any]) -> Any:
            return FORMS[self.form]({path: leaves[path] for path in params}, params)

        def convert(argument: Any) -> Any:
            if not isinstance(argument, (State, Mapping, Pytree)):
                return argument
            leaves = self._values(argument)
            return build(leaves) if leaves.keys() >= params.keys() else argument

        old = strip(self.opt_state)
        tx = self.tx
        if kwargs and isinstance(tx, optax.GradientTransformation):
            tx = optax.with_extra_args_support(tx)
        extra = {name: convert(argument) for name, argument in kwargs.items()}
        with optax_promotion():
            try:
                tx_state = old
                if self.form == "variables":  # the state holds such Variables as well
                    made = jax.eval_shape(tx.init, build(values))
                    tx_state = jax.tree.unflatten(jax.tree.structure(made), jax.tree.leaves(old))
                updates, new = tx.update(build(grads), tx_state, build(values), **extra)
            except (TypeError, ValueError, KeyError):
                changes = changes_since(old, tx, build(values))
                if changes:
                    raise StructureError(_changed(changes)) from None
                raise
            updates, new = _split_like(values, strip(updates)), strip(new)
            # Optax's own arithmetic, so that the bits are those of plain Optax.
            before = list(values.values())
            after: Any = optax.apply_updates(before, list(updates.values()))
        _check_same_shapes(values, dict(zip(values, after, strict=True)), old, new)
        after = dict(zip(params, jax.tree.map(_placed_like, after, before), strict=True))

        if all(map(is_variable, params.values())):
            for path, variable in params.items():
                variable.set_raw_value(after[path])
        else:
            write(model, from_flat_state(after))
        boxes = jax.tree.leaves(self.opt_state, is_leaf=is_variable)
        for box, value in zip(boxes, jax.tree.leaves(new), strict=True):
            box.set_raw_value(value)
        self.step.set_raw_value(self.step.get_raw_value() + 1)
        return from_flat_state(updates)

    def _params(self, model: Any) -> dict[Path, Any]:
        """Returns the Variables and arrays that `wrt` selects, by path."""
        params = dict(to_flat_state(state(model, self.wrt, graph=self.graph)))
        if not params:
            if hasattr(self, "opt_state"):
                gone = changes_since(strip(self.opt_state), self.tx, FORMS[self.form]({}, {}))
                raise StructureError(_changed(gone or ["gone: all that was optimized"]))
            leaves = to_flat_state(state(model, graph=self.graph))
            raise ValueError(_nothing_selected(self.wrt, type(model).__name__, leaves))
        return params

    def _values(self, tree: Any) -> dict[Path, Any]:
        leaves = by_path(tree, only=self.wrt, graph=self.graph)
        return {path: raw_value(leaf) for path, leaf in leaves.items()}

    def _check_fit(self, grads: Mapping[Path, Any], values: Mapping[Path, Any], model: Any) -> None:
        faults = [f"missing: {format_path(path)}" for path in values if path not in grads]
        if extra := grads.keys() - values.keys():
            extra -= {path for path, _ in to_flat_state(state(model, graph=self.graph))}
            faults += sorted(f"unexpected: {format_path(path)}" for path in extra)
        for path in (path for path in values if path in grads):
            expected, found = _shapes(values[path]), _shapes(grads[path])
            if expected != found:
                faults.append(f"{format_path(path)}: expected shape {expected}, found {found}")
        if faults:
            chosen = filter_text(self.wrt)
            raise StructureError(
                f"the gradients do not fit the parameters that wrt={chosen} selects:\n  "
                + "\n  ".join(faults)
                + "\ntake the gradients of the model that you update: "
                "`grads = nnx.grad(loss_fn)(model); optimizer.update(model, grads)`"
            )


give_hints(Optimizer, OPTIMIZER)


class ModelAndOptimizer(Optimizer[M]):
    """An Optimizer that keeps its model, so that `update` takes the gradients alone.

    Attributes:
      model: the model.

    Args:
      model: the model whose Variables are optimized.
      tx: any Optax transformation.
      wrt: a filter that selects the Variables to optimize.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.ModelAndOptimizer(model, optax.sgd(0.1))
      >>> _ = optimizer.update(nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))
      >>> optimizer.model is model
      True
    """

    def __init__(
        self,
        model: M,
        tx: optax.GradientTransformation | optax.MultiSteps,
        *,
        wrt: Filter = Param,
    ):
        super().__init__(model, tx, wrt=wrt)
        self.model = model

    def update(self, grads: Any, /, **kwargs: Any) -> State:  # type: ignore[override]
        """Makes one step on the kept model; as `Optimizer.update` without the model.

        Args:
          grads: the gradients.
          **kwargs: further arguments for the transformation.

        Returns:
          The updates that were added to the parameters.
        """
        return super().update(self.model, grads, **kwargs)


def _is_transformation(tx: Any) -> bool:
    return callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))


def _no_transformation(tx: Any, model: Any) -> str:
    """Says what was given in the place of a transformation."""
    name = getattr(tx, "__name__", type(tx).__name__)
    if _is_transformation(model):
        return (
            f"Optimizer was given an Optax transformation as the model and a {name} as the "
            "transformation: write `nnx.Optimizer(model, tx, wrt=nnx.Param)`, in this order"
        )
    if isinstance(tx, types.FunctionType):
        hint = f"the function {name}: call it, `optax.{name}(1e-3)`"
    else:
        hint = f"a {type(tx).__name__}"
    return f"tx must be an Optax transformation such as `optax.adam(1e-3)`, found {hint}"


def _no_gradients(found: Any) -> str:
    """Says what was given in the place of gradients."""
    if isinstance(found, tuple):
        found_text, remedy = (
            "a tuple",
            "take it apart, `loss, grads = nnx.value_and_grad(loss_fn)(model)`",
        )
    else:
        shape = getattr(found, "shape", None)
        found_text = f"a {type(found).__name__}" if shape is None else f"an array of shape {shape}"
        remedy = "take the gradients of the loss, `grads = nnx.grad(loss_fn)(model)`"
        if callable(found):
            remedy = "call what `nnx.grad` returns, `grads = nnx.grad(loss_fn)(model)`"
    return f"Optimizer.update was given {found_text} as the gradients: {remedy}"


def _nothing_selected(wrt: Any, model: str, leaves: FlatState) -> str:
    """Says what a model holds of which a filter selects nothing."""
    arrays = [format_path(path) for path, leaf in leaves if not isinstance(leaf, Variable)]
    examples: dict[str, str] = {}
    for path, leaf in leaves:
        if isinstance(leaf, Variable):
            examples.setdefault(type(leaf).__name__, format_path(path))
    found = [f"{kind} (such as {path})" for kind, path in examples.items()]
    hints = ["give a type that it holds, such as `wrt=nnx.Param`"] if found else []
    if arrays:
        some = ", ".join(arrays[:5]) + (", ..." if len(arrays) > 5 else "")
        found.append(f"arrays that are in no Variable ({some})")
        hints.append(
            "wrap these where they are set, `self.w = nnx.Param(array)`, or select them as they "
            "are, `wrt=lambda path, x: isinstance(x, jax.Array)`"
        )
    return (
        f"wrt={filter_text(wrt)} selects nothing of the {model}, which holds "
        f"{', '.join(found) or 'neither Variables nor arrays'}: "
        + ("; or ".join(hints) or "give a model that has parameters")
    )


def _changed(changes: list[str]) -> str:
    return (
        "the model is another one than the one that the optimizer was made for, and nothing was "
        "written:\n  "
        + "\n  ".join(changes)
        + "\nmake a new Optimizer for the model as it is now: "
        "`optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)`"
    )


def _check_same_shapes(
    values: Mapping[Path, Any], after: Mapping[Path, Any], old: Any, new: Any
) -> None:
    """Raises if an update would change shapes, of parameters or of the transformation's state."""
    was, becomes = (dict(jtu.tree_leaves_with_path(tree)) for tree in (old, new))
    pairs = [(format_path(path), values[path], after[path]) for path in values]
    pairs += [
        (f"opt_state{jtu.keystr(path)}", was.get(path), becomes.get(path))
        for path in {**was, **becomes}
    ]
    faults = [
        f"{name}: shape {_shapes(x)} before, {_shapes(y)} after"
        for name, x, y in pairs
        if _shapes(x) != _shapes(y)
    ]
    if faults:
        raise StructureError(
            "the update would change shapes, as it does when the optimizer was made for another "
            "model, and nothing was written:\n  "
            + "\n  ".join(faults)
            + "\nmake an optimizer for this model: "
            "`optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)`"
        )


def _split_like(values: Mapping[Path, Any], tree: Any) -> dict[Path, Any]:
    """Takes a tree over the parameters apart again; a parameter may be a pytree of arrays."""
    leaves = iter(jax.tree.leaves(tree))
    structures = {path: jax.tree.structure(value) for path, value in values.items()}
    return {
        path: jax.tree.unflatten(structure, itertools.islice(leaves, structure.num_leaves))
        for path, structure in structures.items()
    }


def _shapes(value: Any) -> Any:
    return jax.tree.map(jnp.shape, value)


def _placed_like(new: jax.Array, old: Any) -> jax.Array:
    """Returns the new value with the sharding of the old one."""
    if isinstance(new, Tracer) or isinstance(old, Tracer):
        wanted = jax.typeof(old).sharding
        if wanted.mesh.empty or jax.typeof(new).sharding == wanted:
            return new
        return jax.sharding.reshard(new, wanted)
    if isinstance(old, jax.Array) and not new.sharding.is_equivalent_to(old.sharding, new.ndim):
        return jax.device_put(new, old.sharding)
    return new
