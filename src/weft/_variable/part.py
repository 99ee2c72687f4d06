"""Parts: Variables whose value is a part of the value of another Variable, the *whole*.

A part has the type of its whole. Reading it indexes the whole, writing it changes the whole, and
that is all it is: two parts of the same place are the same Variable. A `Part` is the keeper of such
a Variable, so that others pay nothing for it.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.errors import AliasError, StructureError
from weft._core.path import Path, format_path
from weft._core.static import Static
from weft._core.text import dtype_text
from weft._core.types import MISSING
from weft._variable.keeper import Keeper, is_part, set_raw
from weft._variable.metadata import axis_names, with_axis_names
from weft._variable.storage import make, set_keeper, set_origin, set_slot, set_trace

Index = tuple[int | range, ...]
"""Where a part is: ints, the last of which may be a range, for the leading axes of the whole."""


class Part(Keeper):
    """The place of a part in its whole.

    Attributes:
      whole: the other Variable, itself no part.
      index: where the part is.
    """

    __slots__ = ("_key", "index", "whole")

    is_part = True

    def __init__(self, whole: Any, index: Index):
        self.whole = whole
        self.index = index
        self._key = tuple(_slice_of(i) if isinstance(i, range) else i for i in index)

    def expose(self, variable: Any) -> None:
        """Brings the part up to date; called before it is read."""
        set_slot(variable, self.part_of(self.whole._raw))

    def write(self, raw: Any) -> None:
        """Writes a new value into the whole.

        Raises:
          StructureError: if the value has another structure, shape or dtype than the part.
        """
        self._check_value(raw)
        set_raw(self.whole, jax.tree.map(self._put, self.whole._raw, raw))

    def check(self, variable: Any, raw: Any, metadata: Static | None) -> None:
        """Raises unless a value of the same structure, and the same metadata, are to be stored."""
        if raw is not MISSING:
            self._check_value(raw)
        if metadata is not None and Static(variable._metadata) != metadata:
            self._refuse(f"its metadata is {variable._metadata}, found {metadata.value}")

    def _check_value(self, raw: Any) -> None:
        old, treedef = jax.tree.flatten(self.whole._raw)
        new, found = jax.tree.flatten(raw)
        if treedef != found:
            self._refuse(f"its value has the structure {treedef}, found {found}")
        for x, value in zip(old, new, strict=True):
            shape = self._shape(x)
            is_number = isinstance(value, (bool, int, float, complex)) and shape == ()
            given = getattr(value, "shape", None), getattr(value, "dtype", None)
            if not is_number and given != (shape, x.dtype):
                expected = jax.ShapeDtypeStruct(shape, x.dtype)
                self._refuse(f"its value is {aval_text(expected)}, found {aval_text(value)}")

    def _refuse(self, text: str) -> None:
        where = ", ".join(
            f"{i.start}:{i.stop}" if isinstance(i, range) else f"{i}" for i in self.index
        )
        raise StructureError(
            f"cannot write part [{where}] of a stacked {type(self.whole).__name__}: {text}. All "
            "parts have the same structure, shape, dtype and metadata; change them all at once, "
            "in the stacked Variable: `stack.stacked.kernel`"
        )

    def _shape(self, x: Any) -> tuple[int, ...]:
        lengths = tuple(len(i) for i in self.index if isinstance(i, range))
        return (*lengths, *x.shape[len(self.index) :])

    def _get(self, x: Any) -> Any:
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(self._shape(x), x.dtype)
        return unused(x)[self._key]

    def part_of(self, raw: Any) -> Any:
        """Returns the part of a value."""
        return jax.tree.map(self._get, raw)

    def _put(self, x: Any, value: Any) -> Any:
        if isinstance(x, np.ndarray):
            x = x.copy()
            x[self._key] = value
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return x
        return x.at[self._key].set(unused(jnp.asarray(value, x.dtype)))


def unused(x: Any) -> Any:
    """Returns an array as it is, keys such that JAX's check does not count what is done with them.

    A part may be read and written any number of times, which draws nothing.
    """
    is_keys = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.clone(x) if is_keys else x


def check_apart(variables: Iterable[tuple[Path, Any]]) -> None:
    """Raises if one of some Variables is a part of another, or overlaps another part.

    Raises:
      AliasError: naming both paths.
    """
    places: dict[int, list[tuple[Path, Index]]] = {}
    others: dict[int, Path] = {}
    for path, value in variables:
        if is_part(value):
            part = value._keeper
            places.setdefault(id(part.whole), []).append((path, part.index))
        else:
            others[id(value)] = path
    for whole, parts in places.items():
        if whole in others:
            raise _overlap_error(parts[0][0], others[whole])
        is_simple = all(len(index) == 1 and isinstance(index[0], int) for _, index in parts)
        for (path, index), (other, second) in itertools.combinations(parts * (not is_simple), 2):
            if all(map(_meet, index, second)):
                raise _overlap_error(path, other)


def _meet(i: int | range, j: int | range) -> bool:
    chosen, other = (k if isinstance(k, range) else (k,) for k in (i, j))
    return not set(chosen).isdisjoint(other)


def _overlap_error(path: Path, other: Path) -> AliasError:
    return AliasError(
        f"{format_path(path)} and {format_path(other)} have layers of a Stack in common: what is "
        "written to one would not be seen in the other. Pass the Stack alone, and take the layer "
        "inside: `stack[3]`"
    )


def part_of(variable: Any, index: int | range) -> Any:
    """Returns the part of a Variable at an index of its first axis, or at a range of them.

    A part of a part is a part of the same whole.
    """
    part = variable._keeper
    if not isinstance(part, Part):
        return _find(variable, (index,))
    *outer, last = part.index
    if isinstance(last, range):
        at = last[_slice_of(index) if isinstance(index, range) else index]
        return _find(part.whole, (*outer, at))
    return _find(part.whole, (*part.index, index))


def take_part(array: Any, index: int | range) -> Any:
    """Returns a copy of a part of an array that no Variable holds."""
    return Part(None, (index,)).part_of(array)


_parts: weakref.WeakValueDictionary[tuple[int, Index], Any] = weakref.WeakValueDictionary()


def _find(whole: Any, index: Index) -> Any:
    """Returns the part of a place, the same as long as somebody has it."""
    metadata = _metadata_of(whole, sum(isinstance(i, int) for i in index))
    found = _parts.get((id(whole), index))
    # An address may be reused, and metadata may have changed since.
    if (
        found is not None
        and found._keeper.whole is whole
        and Static(found._metadata) == Static(metadata)
    ):
        return found
    made = make(type(whole), whole._slot, metadata)  # of the structure that the part will have
    set_trace(made, whole._trace)
    set_origin(made, whole._origin)
    set_keeper(made, Part(whole, index))
    _parts[(id(whole), index)] = made
    return made


def _metadata_of(whole: Any, removed: int) -> dict[str, Any]:
    """Returns the metadata of a part that lacks some of the leading axes."""
    names = whole._metadata.get("out_sharding")
    if not removed or names is None:
        return dict(whole._metadata)
    kept = axis_names(names)[removed:]
    return {**whole._metadata, "out_sharding": with_axis_names(names, kept)}


def _slice_of(chosen: range) -> slice:
    stop = None if chosen.stop < 0 else chosen.stop  # a range may end before 0
    return slice(chosen.start, stop, chosen.step)


def aval_text(x: Any) -> str:
    """Writes dtype and shape of an array: `f32[2,3]`."""
    if not hasattr(x, "dtype"):
        return f"a {type(x).__name__}"
    return f"{dtype_text(x.dtype)}[{','.join(map(str, x.shape))}]"
