"""What weights come from: arrays by name, known before they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from weft._core.path import Own, Path
from weft._saving.dtypes import DTYPES
from weft._saving.facts import is_key
from weft._saving.save import Opened, SavedFile, open_any
from weft._saving.torch_file import array_of
from weft._variable.variable import Variable, raw_value


class Aval(NamedTuple):
    """What is known of an array before it is read."""

    shape: tuple[int, ...]
    dtype: Any

    def __str__(self) -> str:
        return f"{np.dtype(self.dtype).name}{list(self.shape)}"


class FileSource:
    """The arrays of a file or of several with an index; other saved leaves are left out.

    Attributes:
      where: what it is, for messages.
      avals: what is known of each array, by name.
    """

    def __init__(self, opened: Opened):
        self.where = str(opened.file)
        self._opened = opened
        self._paths = {
            name_of(path): path
            for path, fact in opened.facts.items()
            if fact.key is None and fact.number is None
        }
        facts = opened.facts
        self.avals = {
            name: Aval(facts[path].shape, DTYPES[facts[path].dtype])
            for name, path in self._paths.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Returns an array in memory of its own."""
        return self._opened.read(self._paths[name], copy=True)


class MappingSource:
    """The arrays of a mapping, nested or not: of NumPy, JAX or PyTorch, or in Variables.

    Raises:
      TypeError: for what is neither an array nor a mapping; names it.
    """

    where = "the mapping"

    def __init__(self, arrays: Mapping[Any, Any]):
        self._arrays = dict(_flat(arrays, ()))
        for name, x in self._arrays.items():
            check_not_traced(name, x)
        self.avals = {name: Aval(tuple(x.shape), _dtype_of(x)) for name, x in self._arrays.items()}

    def read(self, name: str) -> np.ndarray:
        """Returns an array."""
        value = self._arrays[name]
        return array_of(value.detach().cpu()) if hasattr(value, "detach") else np.asarray(value)


_OTHERS = {
    ".npz": "np.load({!r})",
    ".msgpack": "flax.serialization.msgpack_restore(open({!r}, 'rb').read())",
}
"""By suffix of a file that is not read here what reads it."""

Source = FileSource | MappingSource


def open_source(source: str | os.PathLike[str] | Mapping[Any, Any]) -> Source:
    """Returns the arrays of a file, a folder or a mapping.

    Raises:
      CheckpointError: as `nnx.load`.
      TypeError: for anything else.
    """
    if isinstance(source, SavedFile):
        return FileSource(source.opened)
    if isinstance(source, Mapping):
        return MappingSource(source)
    if isinstance(source, (str, os.PathLike)):
        file = FilePath(source)
        if file.suffix in _OTHERS:
            raise TypeError(
                f"{file} is no file of safetensors or PyTorch: read it with what wrote it, and "
                f"give the arrays by name, `{_OTHERS[file.suffix].format(str(file))}`"
            )
        return FileSource(open_any(file))
    raise TypeError(
        "weights come from a file, a folder with an index, or a mapping of arrays, found a "
        f"{type(source).__name__}: of a model of PyTorch give `model.state_dict()`"
    )


def name_of(path: Path) -> str:
    """Returns the name that an array has in its file, without quotes."""
    return ".".join([key.name if type(key) is Own else str(key) for key in path])


def _flat(arrays: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key, value in arrays.items():
        here = (*path, str(key))
        raw = raw_value(value) if isinstance(value, Variable) else value
        if isinstance(raw, Mapping):
            yield from _flat(raw, here)
        elif _is_array(raw):
            yield ".".join(here), raw
        else:
            raise TypeError(
                f"weights are arrays by name, found {_kind(raw)} at "
                f"{'.'.join(here)!r}: `jnp.asarray(x)`, or leave it out"
            )


def check_not_traced(where: str, value: Any) -> None:
    """Raises TypeError for what has no value while a function is traced."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"weights are loaded by value, and {where or 'the model'} is traced: load outside of "
            "`nnx.jit`, `nnx.grad` and the like"
        )


def _kind(value: Any) -> str:
    return "a PRNG key" if is_key(value) else f"a {type(value).__name__}"


def _is_array(value: Any) -> bool:
    is_array = isinstance(value, (np.ndarray, np.generic, jax.Array)) and not is_key(value)
    return is_array or hasattr(value, "detach")


def _dtype_of(value: Any) -> np.dtype:
    if not hasattr(value, "detach"):
        return np.dtype(value.dtype)
    return array_of(value.detach().flatten()[:1].cpu()).dtype
