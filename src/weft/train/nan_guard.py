"""What becomes of a run whose numbers are none any more: raise, skip the step, or roll back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.errors import WeftError
from weft._core.path import Path, format_path
from weft._saving.leaves import leaves_of
from weft.train.undo import Undo

_IN_A_ROW = 10


class NaNError(WeftError, FloatingPointError):
    """A run logged NaN or an infinity.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> from weft import train
      >>> model = nnx.Dict(scale=nnx.Param(jnp.array(jnp.nan)))
      >>> run = train.Run(None, state={"model": model}, data=[1.0], steps=1, sinks=[])
      >>> for batch in run:
      ...     run.log({"loss": model.scale * batch})
      Traceback (most recent call last):
        ...
      weft.train.nan_guard.NaNError: step 1: loss is nan; the first Variable that is not finite is
      model.scale...
    """


class NaNGuard:
    """Judges steps by what they log, and undoes those that are bad.

    "skip" keeps the arrays from before a step until it is known to be good, looks at all Variables
    after it, and so waits for the device at each step and needs memory for the state twice.

    Args:
      action: "raise", "skip" or "rollback".
      objects: what the steps change, by name.
      roll_back: takes the objects back to the last checkpoint, and returns its step.
      where: returns what an error says of the last checkpoint.
    """

    def __init__(
        self,
        action: str,
        objects: Mapping[str, Any],
        roll_back: Callable[[], int],
        where: Callable[[], str],
    ):
        if action not in ("raise", "skip", "rollback"):
            raise ValueError(f"on_nan must be 'raise', 'skip' or 'rollback', found {action!r}")
        self.looks_at_each_step = action == "skip"
        self._action, self._objects = action, objects
        self._roll_back, self._where = roll_back, where
        self._in_a_row = 0
        self._undo: Undo | None = None
        self._bad_from_the_start: frozenset[str] | None = None

    def begin_step(self) -> None:
        """Keeps what "skip" goes back to."""
        if self.looks_at_each_step:
            if self._bad_from_the_start is None:
                self._bad_from_the_start = frozenset(nonfinite_paths(self._objects))
            self._undo = Undo(self._objects)

    def is_bad_state(self) -> bool:
        """Says whether Variables are not finite that were so when the run began."""
        bad = nonfinite_paths(self._objects)
        return not (self._bad_from_the_start or frozenset()).issuperset(bad)

    def accept(self) -> None:
        """Notes that all was well until here."""
        self._in_a_row = 0

    def reject(self, step: int, what: str) -> None:
        """Acts on a bad step.

        Args:
          step: the step.
          what: what was bad about it, for the message.

        Raises:
          NaNError: if the action is "raise", or another one has not helped ten times in a row.
        """
        bad = nonfinite_paths(self._objects)
        first = f"the first Variable that is not finite is {bad[0]}" if bad else "all Variables are"
        message = f"step {step}: {what}; {first}" + ("" if bad else " finite")
        self._in_a_row += 1
        if self._action == "raise" or self._in_a_row > _IN_A_ROW:
            helped = f" {self._action!r} has not helped {_IN_A_ROW} times in a row." * (
                self._action != "raise"
            )
            others = [f"`on_nan={x!r}`" for x in ("skip", "rollback") if x != self._action]
            raise NaNError(
                f"{message}.{helped} {self._where()} Try a lower learning rate, "
                f"`optax.clip_by_global_norm(1.0)`, or {' or '.join(others)}"
            )
        if self._undo is not None:
            self._undo.put_back()
            done = "the step is skipped, and all Variables are as they were before it"
        else:
            done = f"back to the state of step {self._roll_back()}, while the data goes on"
        warnings.warn(f"{message}; {done}", RuntimeWarning, stacklevel=6)


def nonfinite_paths(objects: Mapping[str, Any]) -> list[str]:
    """Returns the paths of all arrays that are not finite.

    Args:
      objects: objects by name.

    Returns:
      First those of arrays with NaN, then those with infinities alone; each in the order of paths.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> from weft import train
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> model.bias[...] = jnp.array([jnp.inf])
      >>> train.nonfinite_paths({"model": model})
      ['model.bias']
    """
    leaves = {
        path: leaf
        for path, leaf in leaves_of(objects)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    }
    groups: dict[Any, list[Path]] = {}  # one program runs on the devices of its arguments
    for path, leaf in leaves.items():
        is_on_device = isinstance(leaf, jax.Array)
        devices = frozenset(leaf.sharding.device_set) if is_on_device else None
        groups.setdefault(devices, []).append(path)
    kinds: dict[Path, tuple[bool, bool]] = {}
    for devices, paths in groups.items():
        judge = _judge if devices is None else _judge_on_devices
        found = judge([leaves[path] for path in paths])
        has_nan, is_finite = [np.asarray(each).tolist() for each in found]
        kinds.update(zip(paths, zip(has_nan, is_finite, strict=True), strict=True))
    return [
        format_path(path)
        for kind in ((True, False), (False, False))
        for path in leaves
        if kinds[path] == kind
    ]


def _judge(leaves: list[Any]) -> tuple[list[Any], list[Any]]:
    """Judges what is in the memory of the host: JAX might have no numbers as large."""
    return [np.isnan(x).any() for x in leaves], [np.isfinite(x).all() for x in leaves]


@jax.jit
def _judge_on_devices(leaves: list[Any]) -> tuple[jax.Array, jax.Array]:
    # The types of eight bits and less have no such tests of their own.
    wide = [x if jnp.result_type(x).itemsize > 1 else x.astype(jnp.float32) for x in leaves]
    has_nan = jnp.stack([jnp.isnan(x).any() for x in wide])
    return has_nan, jnp.stack([jnp.isfinite(x).all() for x in wide])
