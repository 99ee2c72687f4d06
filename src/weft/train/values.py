"""What is logged: numbers by name, fetched together, and their means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from weft._core.errors import StructureError
from weft.train.history import check_name

_FETCHED_TOGETHER = 256


def by_name(values: Any) -> Mapping[str, Any]:
    """Returns values by name; a lone one is a loss.

    Raises:
      TypeError: for what is no name.
    """
    if not isinstance(values, Mapping):
        return {"loss": values}
    for name in values:
        if not isinstance(name, str):
            raise TypeError(f"numbers have names, found {name!r} for one: write `{{str(name): x}}`")
    return values


def fetched(values: list[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Returns values as NumPy arrays. All are asked for before one is waited for.

    Raises:
      StructureError: naming what is no number.
    """
    if jax.default_backend() != "cpu":  # where there is nothing to copy, and asking takes its time
        for value in jax.tree.leaves(values):
            if isinstance(value, jax.Array):
                value.copy_to_host_async()
    return [{name: _numeric(name, value) for name, value in named.items()} for named in values]


def _numeric(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # keys, or arrays of several shapes
        found = f"a {type(value).__name__}"
    else:
        dtype = array.dtype
        if dtype.kind in "fiub" or (dtype.kind == "V" and dtype.type is not np.void):
            return array
        found = f"{dtype}{list(array.shape)}"
    raise StructureError(
        f"{name!r} is {found}: expected a number or an array of numbers; of several, each by its "
        "name: `{'loss': loss, 'accuracy': accuracy}`"
    )


class Mean(NamedTuple):
    """A sum, and of how many numbers it is."""

    total: float = 0.0
    number: int = 0

    def plus(self, numbers: Iterable[float]) -> Mean:
        """Adds number by number: the same sum, however many come together."""
        total, number = self
        for each in numbers:
            total, number = total + each, number + 1
        return Mean(total, number)

    @property
    def value(self) -> float:
        return self.total / self.number if self.number else math.nan


_NOTHING = Mean()


def mean(values: Iterable[Any]) -> dict[str, float]:
    """Returns the mean of what an evaluation gives for each batch.

    Devices are waited for only now and then, so that batches are computed one after the other
    without a pause. Sums are float64.

    Args:
      values: for each batch numbers or arrays by name, or a lone one, which is a "loss". Of an
        array every element counts: losses of examples are weighed rightly where the last batch is
        smaller.

    Returns:
      The means by name.

    Raises:
      ValueError: if there is no batch.
      StructureError: naming what is no number.
      TypeError: for a dict in the place of one for each batch.

    Example:
      >>> import jax.numpy as jnp
      >>> from weft import train
      >>> batches = [jnp.array([1.0, 2.0]), jnp.array([6.0])]
      >>> train.mean({"loss": batch} for batch in batches)
      {'loss': 3.0}
    """
    if isinstance(values, Mapping):
        raise TypeError(
            "train.mean takes the numbers of several batches, found those of one: "
            "`train.mean(eval_step(model, batch) for batch in batches)`"
        )
    means: dict[str, Mean] = {}
    waiting: list[Mapping[str, Any]] = []

    def add() -> None:
        for found in fetched(waiting):
            for name, array in found.items():
                numbers = array.astype(np.float64).ravel().tolist()
                means[name] = means.get(name, _NOTHING).plus(numbers)
        waiting.clear()

    for value in values:
        waiting.append(by_name(value))
        if len(waiting) == _FETCHED_TOGETHER:
            add()
    add()
    if not means:
        raise ValueError(
            "train.mean was given no batch: an iterator that was used up has none, a list or a "
            "Loader can be gone through again"
        )
    return {name: found.value for name, found in means.items()}


class Logged:
    """What a run logged since its last row; it stays on the device until it is fetched.

    Attributes:
      means: what is fetched, by name.
    """

    def __init__(self) -> None:
        self.means: dict[str, Mean] = {}
        self._waiting: list[tuple[int, int, str, Any]] = []

    def add(self, step: int, steps: int, prefix: str, values: Any) -> None:
        """Takes what was logged.

        Args:
          step: the last step that it is of.
          steps: how many steps, each with one element of every array.
          prefix: what the names begin with.
          values: numbers or arrays by name, or a lone one.

        Raises:
          TypeError, ValueError: for what is no name, or one that every row has of its own.
        """
        named = by_name(values)
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be what names begin with, 'val/'; found {prefix!r}")
        for name in named:
            check_name(prefix + name)
        self._waiting.append((step, steps, prefix, named))

    def fetch(self) -> tuple[int, str] | None:
        """Fetches what waits, all of it together, and adds it to the means.

        Returns:
          None if it is finite. Else the first step that logged, without a prefix, what is not
          finite, and what that was; it and all after it are left out.

        Raises:
          StructureError: if what was logged is no number for each step.
        """
        if not self._waiting:
            return None
        waiting, self._waiting = self._waiting, []
        arrays = fetched([values for *_, values in waiting])
        for (step, steps, prefix, _), named in zip(waiting, arrays, strict=True):
            numbers = {
                prefix + name: _numbers(prefix + name, array, 1 if prefix else steps)
                for name, array in named.items()
            }
            for name, found in numbers.items():
                if not prefix and not all(map(math.isfinite, found)):
                    at = [math.isfinite(number) for number in found].index(False)
                    return step - steps + 1 + at, f"{name} is {found[at]}"
            for name, found in numbers.items():
                self.means[name] = self.means.get(name, _NOTHING).plus(found)
        return None

    def take(self) -> dict[str, float]:
        """Returns the means, and begins new ones."""
        means, self.means = self.means, {}
        return {name: mean.value for name, mean in means.items()}


def _numbers(name: str, array: np.ndarray, steps: int) -> list[float]:
    """Returns the number that was logged for each step."""
    if steps == 1 and array.size == 1:
        return [float(array.item())]
    if array.shape == (steps,):
        return [float(each) for each in array.tolist()]
    raise StructureError(
        f"{name!r} is logged as {array.dtype}{list(array.shape)}: expected "
        + (
            f"one number for each of {steps} steps. Batches are stacks of as many, so make the "
            "step with `train.scanned(train_step)`"
            if steps > 1
            else "a number. Write its mean, `.mean()`"
        )
    )
