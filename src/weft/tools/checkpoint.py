"""Checkpoints: the Variables of objects in one file that is replaced as a whole.

`save` writes all Variables of some objects together with plain data; `restore` writes them back
into objects of the same structure, all or none; `load` reads a file without any objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from weft._core.errors import StructureError
from weft._core.path import Path, format_path, key_of_entry
from weft._graph import from_flat_state, state, to_flat_state, update
from weft._variable.variable import Variable
from weft.tools.checkpoint_file import Checkpoint, CheckpointError, Entry, is_key, read, write

__all__ = ["Checkpoint", "CheckpointError", "Entry", "load", "restore", "save"]


def save(file: str | os.PathLike[str], node: Any, data: Any = None) -> None:
    """Writes the Variables of objects, and plain data, to a file that is replaced as a whole.

    Until the new file is complete and on disk, the former one stays.

    Args:
      file: its name; the folder must exist.
      node: an object or a container of objects, such as `{"model": model, "rngs": rngs}`. A
        Variable that is met twice is written once. Values are arrays of any dtype, typed PRNG
        keys and Python numbers.
      data: what `json` can write: numbers (floats come back equal), strings, lists, dicts.

    Raises:
      TypeError: for values or data of other types; names the path.
      OSError: if the file cannot be written; the former file is untouched.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> from weft.tools import checkpoint
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoint.save(f"{folder}/model.weft", model, {"epoch": 7})
      ...     other = nnx.Linear(2, 3, rngs=nnx.Rngs(1))
      ...     checkpoint.restore(f"{folder}/model.weft", other)
      {'epoch': 7}
      >>> bool((model.kernel == other.kernel).all())
      True
    """
    write(FilePath(file), _leaves(node), data)


def load(file: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint without any objects to put it into.

    Args:
      file: its name.

    Returns:
      Its entries and data.

    Raises:
      CheckpointError: if the file is damaged, or no checkpoint of a known version.
      FileNotFoundError: if there is none.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> from weft.tools import checkpoint
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoint.save(f"{folder}/a.weft", {"a": nnx.Param(1.5)})
      ...     checkpoint.load(f"{folder}/a.weft").entries[("a",)].value
      1.5
    """
    return read(FilePath(file))


def restore(file: str | os.PathLike[str], node: Any) -> Any:
    """Writes the Variables of a checkpoint into objects, in place, all of them or none.

    Arrays get the dtype they were saved with, and are placed as the arrays that they replace.

    Args:
      file: the checkpoint.
      node: objects of the structure that was saved; their arrays may be abstract.

    Returns:
      The data that was given to `save`.

    Raises:
      CheckpointError: if the file is damaged, or no checkpoint of a known version.
      StructureError: if it does not fit the objects; lists every path that is missing, unexpected
        or of another shape, dtype or PRNG implementation.
      FileNotFoundError: if there is no such file.

    Example:
      >>> import os, tempfile
      >>> import weft as nnx
      >>> from weft.tools import checkpoint
      >>> file = os.path.join(tempfile.mkdtemp(), "model")
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> checkpoint.save(file, model, {"step": 7})
      >>> other = nnx.Linear(2, 3, rngs=nnx.Rngs(1))
      >>> checkpoint.restore(file, other)
      {'step': 7}
      >>> bool((other.kernel == model.kernel).all())
      True
    """
    checkpoint = load(file)
    own = dict(_leaves(node))
    faults = [f"missing: {format_path(path)}" for path in own if path not in checkpoint.entries]
    for path, entry in checkpoint.entries.items():
        if path not in own:
            faults.append(f"unexpected: {format_path(path)}")
        elif (wanted := _describe(own[path])) != (found := _describe(entry.value)):
            faults.append(f"{format_path(path)}: expected {wanted}, found {found}")
    if faults:
        raise StructureError(
            f"{file} does not fit the objects, and nothing was written:\n  "
            + "\n  ".join(faults)
            + "\nrestore into objects made as those that were saved"
        )
    flat = {}
    for path, leaf in _state(node).items():
        raw = leaf.get_raw_value() if isinstance(leaf, Variable) else leaf
        keys, structure = jtu.tree_flatten_with_path(raw)
        values = [
            _place(checkpoint.entries[path + tuple(map(key_of_entry, key))], old)
            for key, old in keys
        ]
        raw = jax.tree.unflatten(structure, values)
        flat[path] = leaf.copy(raw) if isinstance(leaf, Variable) else raw
    update(node, from_flat_state(flat))
    return checkpoint.data


def _state(node: Any) -> dict[Path, Any]:
    return dict(to_flat_state(state(node)))


def _leaves(node: Any) -> Iterator[tuple[Path, Any]]:
    """Yields all arrays and numbers; the path goes on inside a Variable that holds a pytree."""
    for path, leaf in _state(node).items():
        raw = leaf.get_raw_value() if isinstance(leaf, Variable) else leaf
        for keys, value in jtu.tree_leaves_with_path(raw):
            yield path + tuple(map(key_of_entry, keys)), value


def _describe(value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        return f"a Python {type(value).__name__}"
    if is_key(value):
        return f"PRNG keys of {value.dtype} and shape {value.shape}"
    return f"{jnp.dtype(value.dtype).name}{list(value.shape)}"


def _place(entry: Entry, old: Any) -> Any:
    """Returns an entry as the kind of array that it replaces, on the same devices."""
    value = entry.value
    if isinstance(old, (bool, int, float)):
        return value
    if isinstance(old, np.ndarray):
        return value.copy()
    value = jnp.asarray(value)
    if entry.weak_type and value.ndim == 0:  # only from a Python number does JAX make one
        weak = jnp.asarray(value.item())
        value = weak if weak.dtype == value.dtype else value
    sharding = getattr(old, "sharding", None)
    if sharding is None or (isinstance(old, jax.Array) and not old.committed):
        return value
    return jax.device_put(value, sharding)
