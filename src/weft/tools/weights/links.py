"""Links: which arrays of a file are which weights of a model, and how one becomes the other.

There are up to three steps: what a rule says, what a layer says of arrays that are several of its
own, and the form that each weight has in PyTorch. All are the same both ways.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.nn.torch_weights import Into
from weft.tools.weights.layout import Entry, Slot
from weft.tools.weights.rules import Rule

Arrays = list[np.ndarray]


@dataclasses.dataclass
class Link:
    """Arrays of a file and the weights that they are.

    Attributes:
      sources: the names of the arrays; None for one that is not there.
      entries: what they are in the model.
      rule: the rule that says so; None for the names of PyTorch.
    """

    sources: list[str | None]
    entries: tuple[Entry, ...]
    rule: Rule | None = None

    @property
    def slots(self) -> list[Slot]:
        """The weights, in order."""
        return [slot for entry in self.entries for slot in entry.slots]

    @property
    def is_function(self) -> bool:
        """Whether a function of the rule makes the weights, of arrays that may be anything."""
        return self.rule is not None and self.rule.into.load is not None

    @property
    def _is_paired(self) -> bool:
        """Whether the arrays are those of one entry, which has several, each converted alone."""
        return len(self.entries) == 1 and len(self.entries[0].names) > 1

    def load(self, arrays: Arrays) -> Arrays:
        """Returns the weights of the arrays, in the order of the slots.

        Raises:
          ValueError: if the arrays do not fit.
        """
        try:
            return self._loaded(arrays)
        except (ValueError, TypeError, IndexError):
            raise
        except Exception as error:  # of a function of the user's
            names = ", ".join(map(str, self.sources))
            error.add_note(f"in `load` of {self.rule or 'a layer'}, given zeros or {names}")
            raise

    def _loaded(self, arrays: Arrays) -> Arrays:
        into = None if self.rule is None else self.rule.into
        if self._is_paired:
            groups = [[_forward(into, [array]) for array in arrays]]
        else:
            wholes = [lambda entry=entry: _saved(entry)[0] for entry in self.entries]
            groups = [[part] for part in _split(into, _forward(into, arrays), wholes)]
        made = []
        for entry, group in zip(self.entries, groups, strict=True):
            whole = _forward(entry.into, group)
            forms = [lambda slot=slot: _form(slot, _zeros(slot)) for slot in entry.slots]
            parts = _split(entry.into, whole, forms)
            for slot, part in zip(entry.slots, parts, strict=True):
                array = _forward(slot.form, [part])
                if array.shape != slot.shape:
                    raise ValueError(f"they make shape {array.shape}")
                made.append(array)
        return made

    def save(self, weights: Arrays) -> Arrays:
        """Returns the arrays of the weights, in the order of the sources.

        Raises:
          ValueError: if the weights do not fit.
        """
        into, wholes, rest = None if self.rule is None else self.rule.into, [], list(weights)
        for entry in self.entries:
            own, rest = rest[: len(entry.slots)], rest[len(entry.slots) :]
            wholes.append(_saved(entry, own))
        if self._is_paired:
            return [_backward(into, [array], 1)[0] for array in wholes[0]]
        return _backward(into, [whole for (whole,) in wholes], len(self.sources))

    def expected(self) -> list[tuple[int, ...]] | None:
        """Returns the shapes that the arrays should have; None if that cannot be told."""
        try:
            return [array.shape for array in self.save([_zeros(slot) for slot in self.slots])]
        except (ValueError, TypeError, IndexError):
            return None

    def how(self) -> str:
        """Says in words how the arrays are converted."""
        steps = [] if self.rule is None else [self.rule.into]
        steps += [entry.into for entry in self.entries if entry.into is not None]
        steps += [slot.form for slot in self.slots if slot.form is not None]
        rank = len((self.expected() or [()])[0])
        moves = [step.axes for step in steps if step.axes is not None and len(step.axes) == rank]
        words = ["joined"] * (len(self.sources) > 1) + ["split"] * (len(self.slots) > 1)
        if not words and all(step.load is None for step in steps):
            axes = _composed(moves)
            return f"axes {axes}" if axes else "as is"
        if any(step.load is not None for step in steps):
            words.append("converted")
        elif moves:
            words.append("transposed")
        return ", ".join(words)


def _composed(permutations: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Returns one permutation for several, one after another; None if nothing moves."""
    made = None
    for axes in permutations:
        made = axes if made is None else tuple([made[axis] for axis in axes])
    return None if made is None or list(made) == sorted(made) else made


def _zeros(slot: Slot) -> np.ndarray:
    """Returns zeros of the shape of a weight, without memory."""
    return zeros(slot.shape, slot.dtype)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns zeros that take no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _form(slot: Slot, array: np.ndarray) -> np.ndarray:
    return _backward(slot.form, [array], 1)[0]


def _saved(entry: Entry, weights: Arrays | None = None) -> Arrays:
    """Returns the arrays of an entry, as many as it has names; of zeros by default."""
    given = [_zeros(slot) for slot in entry.slots] if weights is None else weights
    forms = [_form(slot, array) for slot, array in zip(entry.slots, given, strict=True)]
    return _backward(entry.into, forms, len(entry.names))


def _forward(into: Into | None, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Makes one array of several."""
    if into is None:
        (array,) = arrays
        return array
    if into.load is not None:
        return np.asarray(into.load(*arrays))
    permuted = [_permuted(array, into.axes) for array in arrays]
    if len(permuted) == 1:
        return permuted[0]
    if into.sizes is not None and (found := _sizes(into, permuted)) != into.sizes:
        raise ValueError(f"along axis {into.axis} they are {found} long, by the rule {into.sizes}")
    return np.concatenate(permuted, into.axis)


def _split(into: Into | None, whole: np.ndarray, parts: Sequence[Any]) -> Arrays:
    """Takes an array apart into parts as long as those that functions return."""
    if len(parts) == 1 or into is None:
        return [whole]
    sizes = _sizes(into, [part() for part in parts])
    if whole.shape[into.axis] != sum(sizes):
        raise ValueError(f"axis {into.axis} is not as long as its parts {sizes} together")
    return np.split(whole, np.cumsum(sizes)[:-1], into.axis)


def _backward(into: Into | None, parts: Arrays, count: int) -> Arrays:
    """Makes of parts the arrays of a file; the inverse of `_forward` and `_split`."""
    if into is None:
        return parts
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, into.axis)
    if into.load is not None:
        if into.save is None:
            raise ValueError("the rule has no `save`")
        made = into.save(whole)
        made = list(made) if isinstance(made, tuple) else [made]
        if len(made) != count:
            raise ValueError(f"`save` of the rule returns {len(made)} arrays, expected {count}")
        return made
    arrays = [whole]
    if count > 1:
        length = whole.shape[into.axis]
        sizes = into.sizes or (length // count,) * count
        if sum(sizes) != length or len(sizes) != count:
            raise ValueError(
                f"axis {into.axis}, {length} long, cannot be split into {count} arrays"
                + (f" of sizes {sizes}" if into.sizes else " alike: say `nnx.Into(..., sizes=...)`")
            )
        arrays = np.split(whole, np.cumsum(sizes)[:-1], into.axis)
    back = None if into.axes is None else tuple(np.argsort(into.axes).tolist())
    return [_permuted(array, back) for array in arrays]


def _permuted(array: np.ndarray, axes: tuple[int, ...] | None) -> np.ndarray:
    return array if axes is None or len(axes) != array.ndim else array.transpose(axes)


def _sizes(into: Into, arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
    return tuple([array.shape[into.axis] for array in arrays])
