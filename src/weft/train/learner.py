"""Learner: a model with all that training it takes, declared once.

What is *trained* of the model is one filter: `wrt` without what is `frozen`. Gradients are taken of
that, and the optimizer, the averages and the norms know nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import optax

from weft._core.filters import All, Filter, Not, filter_text
from weft._core.path import Path
from weft._graph import State, from_flat_state, state, to_flat_state, update
from weft._lift.autodiff import DiffState, check_loss, value_and_grad
from weft._lift.branch import cond
from weft._lift.lift import name_of
from weft._module import Pytree, data
from weft._rng import RngState
from weft._variable.types import Param
from weft._variable.variable import Variable, raw_value
from weft.train.ema import EMA
from weft.train.groups import Groups, partition
from weft.train.leaves import strip
from weft.train.loss_scale import LossScale
from weft.train.opt_state import init_state
from weft.train.optimizer import Optimizer

M = TypeVar("M")


class Learner(Pytree, Generic[M]):
    """A model, its optimizer, and what else a step of training changes, as one object.

    It is passed to `nnx.jit`, saved and restored as a whole. Variables that are frozen have neither
    gradients nor optimizer state. Everything else is Optax's: schedules, clipping, decay.

    Attributes:
      model: the model.
      optimizer: the `nnx.Optimizer` of what is trained.
      ema: the `nnx.EMA` of what is trained, or None.
      loss_scale: the `train.LossScale`, or None.
      trained: the filter that selects what is trained.

    Args:
      model: the model.
      tx: an Optax transformation; or pairs of a filter and a transformation, of which a parameter
        takes the first that selects it: `[(nnx.PathContains("bias"), optax.sgd(0.1)), (..., tx)]`.
      wrt: the filter that selects what is trained.
      frozen: a filter for what of it is not.
      ema: the decay of an exponential moving average of what is trained; None for none.
      accumulate: the gradients of so many steps are averaged before the parameters change, by
        `optax.MultiSteps`. The average of parameters moves when they change.
      loss_scale: how float16 keeps its gradients from vanishing: True for `train.LossScale()`, or
        one of your own.

    Raises:
      TypeError: if `tx` is neither a transformation nor groups, or an option of another type.
      ValueError: if `frozen` or a group selects nothing, or nothing is left to be trained.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import weft as nnx
      >>> from weft import train
      >>> model = nnx.Sequential(
      ...     nnx.Linear(2, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 1, rngs=nnx.Rngs(1))
      ... )
      >>> first = nnx.PathContains(0)  # stays as it is
      >>> learner = train.Learner(model, optax.adam(1e-2), frozen=first, ema=0.99)
      >>> def loss_fn(model, x, y):
      ...     return jnp.mean((model(x) - y) ** 2)
      >>> @nnx.jit
      ... def train_step(learner, x, y):
      ...     loss, norms = learner.step(loss_fn, x, y)
      ...     return {"loss": loss, **norms}
      >>> values = train_step(learner, jnp.ones((4, 2)), jnp.ones((4, 1)))
      >>> sorted(values)
      ['grad_norm', 'loss', 'update_norm']
    """

    def __init__(
        self,
        model: M,
        tx: optax.GradientTransformation | optax.MultiSteps | Groups,
        *,
        wrt: Filter = Param,
        frozen: Filter = None,
        ema: float | None = None,
        accumulate: int = 1,
        loss_scale: LossScale | bool = False,
    ):
        trained: Filter = wrt
        if frozen is not None:
            if not to_flat_state(state(model, All(wrt, frozen))):
                raise ValueError(
                    f"frozen={filter_text(frozen)} selects nothing of what wrt={filter_text(wrt)} "
                    "does: give a filter such as `nnx.PathContains('encoder')`, or leave it out"
                )
            trained = All(wrt, Not(frozen))
        if isinstance(tx, Sequence) and not isinstance(tx, optax.GradientTransformation):
            tx = partition(model, trained, tx)
        _check_types(ema, accumulate, loss_scale)
        if accumulate != 1:
            if accumulate < 1 or isinstance(tx, optax.MultiSteps):
                raise ValueError(
                    f"accumulate={accumulate!r} of a {type(tx).__name__}: give a number of steps "
                    "from 1 and a plain transformation, or `optax.MultiSteps` and no number"
                )
            tx = optax.MultiSteps(tx, accumulate)  # type: ignore[arg-type]
        self.trained = trained
        self.model = model
        self.optimizer = Optimizer(model, tx, wrt=trained)  # type: ignore[arg-type]
        self.ema = None if ema is None else EMA(model, ema, only=trained)
        self.loss_scale = LossScale() if loss_scale is True else loss_scale or None
        if self.loss_scale is not None:
            _widen_state(self.optimizer, model)

    def step(
        self, loss_fn: Callable[..., Any], /, *args: Any, has_aux: bool = False, **kwargs: Any
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Makes one step of training, in place.

        With a loss scale, a step whose gradients are not finite changes the scale, random streams
        and nothing else, also what the model itself writes (statistics of BatchNorm).

        Args:
          loss_fn: a function of the model and of what follows that returns a scalar loss.
          *args: what it is called with after the model.
          has_aux: whether it returns a pair, of the loss and anything else.
          **kwargs: what it is called with by name.

        Returns:
          What `loss_fn` returned, and norms as of `update`.
        """
        before = self._own_leaves() if self.loss_scale else {}
        held = {path: raw_value(leaf) for path, leaf in before.items()}
        values, grads = self.value_and_grad(loss_fn, has_aux=has_aux)(*args, **kwargs)
        norms = self.update(grads, value=values[0] if has_aux else values)
        if before:
            self._keep_where(norms["skipped"], before, held)
        return values, norms

    def value_and_grad(
        self, loss_fn: Callable[..., Any], /, *, has_aux: bool = False
    ) -> Callable[..., tuple[Any, State]]:
        """Returns a function of what follows the model, to the loss and the gradients.

        As `nnx.value_and_grad`, of what is trained. Gradients with a loss scale are divided by it,
        in float32.

        Args:
          loss_fn: a function of the model and of what follows that returns a scalar loss.
          has_aux: whether it returns a pair, of the loss and anything else.
        """
        scale = self.loss_scale
        chosen = DiffState(0, self.trained)
        if scale is None:
            differentiated = value_and_grad(loss_fn, argnums=chosen, has_aux=has_aux)
            return lambda *args, **kwargs: differentiated(self.model, *args, **kwargs)

        def scaled(model: M, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            values = loss_fn(model, *args, **kwargs)
            check_loss(values, has_aux, False, name_of(loss_fn))
            return scale.scale(values[0] if has_aux else values), values

        differentiated = value_and_grad(scaled, argnums=chosen, has_aux=True)

        def call(*args: Any, **kwargs: Any) -> tuple[Any, State]:
            (_, values), grads = differentiated(self.model, *args, **kwargs)
            return values, scale.unscale(grads)

        return call

    def update(self, grads: Any, /, **kwargs: Any) -> dict[str, jax.Array]:
        """Changes what is trained by gradients, in place.

        Args:
          grads: the gradients, as `value_and_grad` gives them.
          **kwargs: further arguments for the transformation, as of `nnx.Optimizer.update`; `step`
            gives the loss as `value`, which `optax.contrib.reduce_on_plateau` wants.

        Returns:
          Scalars by name: `grad_norm` and `update_norm`, the norms of all gradients and of all that
          was added, in float32; with a loss scale `loss_scale` and `skipped`, 1 where the step
          was left out and 0 elsewhere.

        Raises:
          StructureError: if the gradients do not fit what is trained.
        """
        grad_norm = _norm(grads)
        if self.loss_scale is None:
            return {"grad_norm": grad_norm, "update_norm": _apply(self, grads, kwargs)}
        finite = jnp.isfinite(grad_norm)
        update_norm = cond(finite, _apply, _leave_out, self, grads, kwargs)
        self.loss_scale.adjust(finite)
        return {
            "grad_norm": grad_norm,
            "update_norm": update_norm,
            "loss_scale": self.loss_scale.value.get_raw_value(),
            "skipped": 1.0 - finite.astype(jnp.float32),
        }

    def averaged(self) -> M:
        """Returns the model with the averages in the place of what is trained.

        It holds the very Variables of the average, and for the rest those of the model.

        Raises:
          ValueError: if there is no average.
        """
        if self.ema is None:
            raise ValueError("the Learner keeps no average: `train.Learner(model, tx, ema=0.999)`")
        return self.ema.apply_to(self.model)

    def _own_leaves(self) -> dict[Path, Any]:
        """Returns what the model itself may write, neither trained nor random, by path."""
        return dict(to_flat_state(state(self.model, Not((self.trained, RngState)))))

    def _keep_where(self, skipped: Any, before: dict[Path, Any], held: dict[Path, Any]) -> None:
        """Puts back what the model held before, where a step is left out."""

        def chosen(old: Any, new: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(skipped, a, b), old, new)

        for path, leaf in before.items():
            if isinstance(leaf, Variable) and leaf.get_raw_value() is not held[path]:
                leaf.set_raw_value(chosen(held[path], leaf.get_raw_value()))
        if all(isinstance(leaf, Variable) for leaf in before.values()):
            return
        now = self._own_leaves()
        changed = {
            path: chosen(held[path], now[path])
            for path, leaf in before.items()
            if not isinstance(leaf, Variable) and now.get(path, leaf) is not leaf
        }
        if changed:
            update(self.model, from_flat_state(changed))


def _check_types(ema: Any, accumulate: Any, loss_scale: Any) -> None:
    if type(accumulate) is not int:
        raise TypeError(f"accumulate is a number of steps, found {accumulate!r}: `accumulate=4`")
    if isinstance(ema, bool):
        raise TypeError(f"ema is the decay of an average, found {ema!r}: `ema=0.999`, or None")
    if loss_scale is not None and not isinstance(loss_scale, (bool, LossScale)):
        initial = loss_scale if isinstance(loss_scale, (int, float)) else 2.0**15
        raise TypeError(
            f"loss_scale is True or a train.LossScale, found {loss_scale!r}: "
            f"`loss_scale=train.LossScale({initial!r})`"
        )


def _widen_state(optimizer: Optimizer[Any], model: Any) -> None:
    """Makes the state of an optimizer as gradients in float32 leave it.

    That of parameters in float16 would change its dtypes in the first step, and have no room for
    squares of gradients.
    """
    params = dict(to_flat_state(state(model, optimizer.wrt)))
    wide = {path: _wide_like(leaf) for path, leaf in params.items()}
    if any(wide[path] is not leaf for path, leaf in params.items()):
        optimizer.form, made = init_state(optimizer.tx, wide)
        optimizer.opt_state = data(made)


def _wide_like(leaf: Any) -> Any:
    value = raw_value(leaf)
    made = jax.tree.map(_at_least_float32, value)
    if all(a is b for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(value), strict=True)):
        return leaf
    return leaf.copy(made) if isinstance(leaf, Variable) else made


def _at_least_float32(x: Any) -> Any:
    is_narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
    if not is_narrow:
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(dtype=jnp.float32)
    return x.astype(jnp.float32)


def _apply(learner: Learner[Any], grads: Any, kwargs: dict[str, Any]) -> jax.Array:
    """Makes an update; returns the norm of what was added."""
    optimizer = learner.optimizer
    updates = optimizer.update(learner.model, grads, **kwargs)
    if learner.ema is not None:
        tx = optimizer.tx
        if isinstance(tx, optax.MultiSteps):
            is_last = tx.has_updated(strip(optimizer.opt_state))
            cond(is_last, EMA.update, _stay, learner.ema, learner.model)
        else:
            learner.ema.update(learner.model)
    return _norm(updates)


def _leave_out(learner: Learner[Any], grads: Any, kwargs: dict[str, Any]) -> jax.Array:
    return jnp.float32(0)


def _stay(ema: EMA, model: Any) -> None:
    return None


def _norm(tree: Any) -> jax.Array:
    """Returns the Euclidean norm of all leaves, in float32."""

    def single(x: Any) -> jax.Array:
        is_complex = jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)
        return jnp.asarray(x, jnp.complex64 if is_complex else jnp.float32)

    return optax.tree.norm(jax.tree.map(single, strip(tree)))
