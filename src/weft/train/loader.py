"""Batches of arrays in memory, in an order that a number of seed and epoch decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from weft._core.errors import StructureError
from weft.train.whole import whole

T = TypeVar("T")


class Loader(Generic[T]):
    """Batches of arrays that lie in memory, epoch by epoch; each epoch has an order of its own.

    A loop over it gives what is left of the epoch, so that a second loop is the next epoch, and one
    that was broken off goes on. The order depends on seed and epoch alone, so that the whole state
    is one number, the batches drawn so far.

    Attributes:
      position: the batches drawn since the beginning.

    Args:
      arrays: an array or a tree of them (`(images, labels)`, a dict) with as many examples each,
        along the first axis.
      batch_size: examples in a batch.
      seed: decides the order.
      shuffle: False for the order of the arrays in every epoch.
      drop_last: whether examples that fill no whole batch at an epoch's end are left out; with
        False the last batch is smaller, and a compiled step is compiled once more for it.

    Raises:
      TypeError: for what is no array.
      ValueError: if there are no arrays, their lengths differ, or they make no batch; for a seed
        below 0.

    Example:
      >>> import numpy as np
      >>> from weft import train
      >>> loader = train.Loader({"x": np.arange(6)}, batch_size=2, seed=1)
      >>> len(loader), [batch["x"].tolist() for batch in loader]
      (3, [[4, 0], [2, 1], [5, 3]])
      >>> loader.state_dict()["position"]
      3
    """

    def __init__(
        self,
        arrays: T,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
    ):
        leaves = jax.tree.leaves(arrays)
        lengths = sorted({_length(leaf) for leaf in leaves})
        if len(lengths) != 1:
            raise ValueError(
                "Loader needs arrays with as many examples each, along the first axis; found "
                + (f"lengths {lengths}" if lengths else "no array")
            )
        batch_size, seed = whole("batch_size", batch_size), whole("seed", seed, 0)
        full, rest = divmod(lengths[0], batch_size)
        self._batches = full if drop_last or not rest else full + 1
        if not lengths[0]:
            raise ValueError("Loader finds no examples: the arrays have the length 0")
        if not self._batches:
            raise ValueError(
                f"Loader finds no batch of {batch_size} in {lengths[0]} examples: give a "
                f"batch_size from 1 to {lengths[0]}"
            )
        self._arrays = arrays
        self._facts = {
            "examples": lengths[0],
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": bool(shuffle),
            "drop_last": bool(drop_last),
        }
        self.position = 0

    def __len__(self) -> int:
        """The batches of an epoch."""
        return self._batches

    @property
    def epoch(self) -> int:
        """The epochs that are complete."""
        return self.position // self._batches

    def __iter__(self) -> Iterator[T]:
        epoch, facts = self.epoch, self._facts
        count, size = facts["examples"], facts["batch_size"]
        order = (
            np.random.default_rng([facts["seed"], epoch]).permutation(count)
            if facts["shuffle"]
            else np.arange(count)
        )
        while self.epoch == epoch:
            start = self.position % self._batches * size
            chosen = order[start : start + size]
            self.position += 1
            yield jax.tree.map(lambda array, chosen=chosen: array[chosen], self._arrays)

    def state_dict(self) -> dict[str, Any]:
        """Returns where the loader is, and what its order depends on; plain numbers."""
        return {"position": self.position, **self._facts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where another loader was.

        Args:
          state: what `state_dict` returned there.

        Raises:
          StructureError: if that one had other batches or another order; nothing is changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"expected what `state_dict` returned, found a {type(state).__name__}")
        faults = [
            f"{name}: then {state.get(name)!r}, now {now!r}"
            for name, now in self._facts.items()
            if state.get(name) != now
        ]
        if faults:
            raise StructureError(
                "the Loader does not give the batches that it gave when its state was saved:\n  "
                + "\n  ".join(faults)
                + "\ngive it the same arguments and as many examples, or begin in another folder"
            )
        self.position = whole("the position in a Loader's state", state.get("position"), 0)


def _length(array: Any) -> int:
    """Returns how many examples an array has.

    Raises:
      TypeError: if it is none, or has no axes.
    """
    if not getattr(array, "shape", ()) or not hasattr(array, "__getitem__"):
        raise TypeError(
            f"Loader takes arrays, or a tree of them, whose first axis is that of the examples; "
            f"found a {type(array).__name__}: `np.asarray(x)`"
        )
    return len(array)
