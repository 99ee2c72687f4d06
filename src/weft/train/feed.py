"""Where a run's batches come from: any iterable, gone through again and again, and its position."""

from __future__ import annotations

import base64
import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.errors import StructureError
from weft._saving.facts import is_key

# How a source of batches says and hears where it is: grain's way and that of PyTorch's loaders.
_WAYS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))


class Feed:
    """Draws batches from an iterable, and can go on where another one was.

    Of data that tells its state (`state_dict` and `load_state_dict`, or `get_state` and
    `set_state`, of the iterable or of its iterator) that is what is kept. Other data is gone
    through from its beginning to the same place, so it must give the same batches again.

    Attributes:
      drawn: the batches drawn so far.

    Args:
      data: the iterable. Where it ends it is begun again, unless it is an iterator.
      again: False to end where the data ends.
    """

    def __init__(self, data: Iterable[Any], *, again: bool = True):
        if not isinstance(data, Iterable) or isinstance(data, (Mapping, str, bytes)):
            raise TypeError(
                f"data must be an iterable of batches, found {type(data).__name__}: give a list, a "
                "`train.Loader((images, labels), batch_size=64)` or any other loader"
            )
        self.data = data
        self.drawn = 0
        self._again = again and not isinstance(data, Iterator)
        self._iterator: Iterator[Any] | None = None

    def draw(self) -> Any:
        """Returns the next batch.

        Raises:
          StopIteration: if there is none any more.
          ValueError: if there never was one, of data that is not used up by going through it.
        """
        if self._iterator is None:
            self._iterator = iter(self.data)
        try:
            batch = next(self._iterator)
        except StopIteration:
            if not self.drawn and not isinstance(self.data, Iterator):
                raise ValueError(
                    f"data has no batch, as it is an empty {type(self.data).__name__}: give one "
                    "that has, such as a `train.Loader((images, labels), batch_size=64)`"
                ) from None
            if not self._again:
                raise
            self._iterator = iter(self.data)
            batch = next(self._iterator)
        self.drawn += 1
        return batch

    def draw_for(self, step: int, steps: int | None, per_call: int) -> tuple[Any, int]:
        """Returns what the next call of a train step gets, and of how many steps it is.

        Args:
          step: the steps that are done.
          steps: all of them, or None.
          per_call: how many a call makes. The first one may make fewer, up to a multiple, if the
            run made another number before.
        """
        if per_call == 1:
            return self.draw(), 1
        count = per_call - step % per_call
        return self.stack(count if steps is None else min(count, steps - step))

    def stack(self, count: int) -> tuple[Any, int]:
        """Returns the next batches as one, whose arrays have a further first axis; and how many.

        Raises:
          StopIteration: if there is none. There are fewer than asked for where the data ends.
          StructureError: if they differ in structure, shape or dtype.
        """
        batches = [self.draw()]
        with contextlib.suppress(StopIteration):
            while len(batches) < count:
                batches.append(self.draw())
        try:
            return jax.tree.map(_stacked, *batches), len(batches)
        except ValueError as error:
            raise StructureError(
                f"{len(batches)} batches that go into one call must have equal structures, shapes "
                f"and dtypes: {error}. Leave a smaller last batch out "
                "(`train.Loader(..., drop_last=True)`), or set `steps_per_call=1`"
            ) from None

    def _stateful(self) -> tuple[Any, str, str] | None:
        """Returns who tells the state of the data, and how."""
        if self._iterator is None and not any(hasattr(self.data, get) for get, _ in _WAYS):
            self._iterator = iter(self.data)
        for owner in (self._iterator, self.data):
            for get, put in _WAYS:
                if hasattr(owner, get) and hasattr(owner, put):
                    return owner, get, put
        return None

    def state(self) -> dict[str, Any]:
        """Returns the position in the data, in terms of JSON."""
        state = {"drawn": self.drawn, "length": length_of(self.data)}
        if found := self._stateful():
            owner, get, _ = found
            state["own"] = to_json(getattr(owner, get)())
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where another feed was; of this one nothing may have been drawn yet.

        Raises:
          StructureError: if its data was of another length or kind.
        """
        length = length_of(self.data)
        if state["length"] != length:
            raise StructureError(
                f"the data has another length than when the run was saved: then {state['length']}, "
                f"now {length}. Give the same data, or begin in another folder"
            )
        found = self._stateful()
        if (found is not None) != ("own" in state):
            then, now = ("with", "without") if "own" in state else ("without", "with")
            raise StructureError(
                f"the run was saved with data {then} a state of its own, and is now given "
                f"{type(self.data).__name__}, data {now} one: give the same data, or begin in "
                "another folder"
            )
        if found is None:
            self._go_to(state["drawn"])
        else:
            owner, _, put = found
            getattr(owner, put)(from_json(state["own"]))
        self.drawn = state["drawn"]

    def _go_to(self, drawn: int) -> None:
        """Draws batches until there have been so many."""
        while self.drawn < drawn:
            try:
                self.draw()
            except StopIteration:
                raise StructureError(
                    f"the data ended after {self.drawn} batches, and the run had drawn {drawn} of "
                    "them when it was saved: give the same data, from its beginning, or begin in "
                    "another folder"
                ) from None


def length_of(data: Any) -> int | None:
    """Returns how many batches data has, or None if it does not tell."""
    try:
        return len(data)
    except (TypeError, NotImplementedError, OverflowError):  # it has no end, or does not know it
        return None


def _stacked(*arrays: Any) -> Any:
    """Returns arrays as one, in the memory of the host unless they are random keys.

    Raises:
      ValueError: if they are of different shapes or dtypes.
    """
    if is_key(arrays[0]):
        return jnp.stack(arrays)
    hosts = [np.asarray(array) for array in arrays]
    dtypes = sorted({str(host.dtype) for host in hosts})
    if len(dtypes) > 1 and hosts[0].dtype.kind not in "SU":
        raise ValueError(f"found the dtypes {' and '.join(dtypes)}")
    return np.stack(hosts)


def to_json(value: Any) -> Any:
    """Returns a loader's state in terms of JSON, such that `from_json` makes it again."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [to_json(each) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [to_json(each) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[to_json(key), to_json(each)] for key, each in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    torch = sys.modules.get("torch")  # its loaders keep the state of generators in tensors
    is_tensor = torch is not None and isinstance(value, torch.Tensor)
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(
            f"the state of the data holds {value!r} of type {type(value).__name__}: expected "
            "numbers, texts, bytes, arrays, and lists, tuples and dicts of them"
        )
    return {
        "tensor" if is_tensor else "array": base64.b64encode(array.tobytes()).decode(),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
    }


def from_json(value: Any) -> Any:
    """Returns what `to_json` was given."""
    if isinstance(value, list):
        return [from_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"tuple": items}:
            return tuple(map(from_json, items))
        case {"dict": items}:
            return {from_json(key): from_json(each) for key, each in items}
        case {"bytes": text}:
            return base64.b64decode(text)
        case {"array": text} | {"tensor": text}:
            raw = np.frombuffer(base64.b64decode(text), np.dtype(value["dtype"]))
            array = raw.reshape(value["shape"]).copy()
            if "array" in value:
                return array
            return importlib.import_module("torch").from_numpy(array)
    raise StructureError(f"the state of the data is of an unknown form: {value!r}")
