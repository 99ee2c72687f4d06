"""Saving weights under the names of others, for PyTorch and what reads its files."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._saving.collect import check_value
from weft._saving.dtypes import FORMAT_NAMES
from weft._saving.index import INDEX
from weft._saving.leaves import Objects
from weft._saving.replacing import replacing
from weft._saving.save import on_host
from weft._saving.tensor_file import write_arrays
from weft._saving.torch_file import SUFFIXES
from weft.tools.weights.layout import Layout, Slot
from weft.tools.weights.links import Link, zeros
from weft.tools.weights.namer import Named, Namer
from weft.tools.weights.rules import Rules, check_invertible, parse_rules

_ROOT, _METADATA = "model", {"format": "pt"}
_ALL, _INDEX = "model.safetensors", f"model{INDEX}"
_OWN = re.compile(rf"model(-\d{{5}}-of-\d{{5}})?\.safetensors|{re.escape(_INDEX)}")
"""The names of files that this writes into a folder."""
_OTHER_SUFFIXES = {*SUFFIXES, ".npz", ".h5", ".json", ".msgpack", ".onnx", ".pkl"}


@boundary
def save_weights(
    model: Any,
    path: str | os.PathLike[str],
    rules: Rules | None = None,
    *,
    max_shard_size: int | None = None,
) -> None:
    """Writes the weights of a model to a safetensors file that PyTorch and others read.

    The inverse of `nnx.load_weights`, by the same rules: every array gets the name and the layout
    that it has there. What is shared is written once, unless rules have two names for it. What
    rules lead to None is not written.

    Args:
      model: an object or a container of objects.
      path: a file, `model.safetensors`, or a folder, which gets a file of this name. What was
        saved there before is replaced as a whole.
      rules: as for `nnx.load_weights`.
      max_shard_size: for a folder, how many bytes of arrays a file may have: then there are
        several and an index, as large models have them.

    Raises:
      ValueError: for a rule that cannot be inverted, or does not fit what it leads to; for arrays
        that were donated, or of which parts are on other hosts; for a path of another format.
      StructureError: if rules give two weights one name, or lead to what the model does not have.
      TypeError: for an abstract model, and for dtypes that the format does not have.
      OSError: if a file cannot be written.

    Example:
      >>> import pathlib, tempfile
      >>> import weft as nnx
      >>> file = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
      >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)
      >>> nnx.save_weights(model, file)
      >>> {name: array.shape for name, array in nnx.load(file).items()}
      {'0.bias': (3,), '0.weight': (3, 2)}
    """
    parsed = parse_rules(rules)
    check_invertible(parsed)
    named = Namer(Layout(model), parsed).links()
    leaves = Objects({_ROOT: model}).leaves
    for leaf in {slot.leaf for link in named.values() for slot in link.slots}:
        check_value(format_path(leaf), leaves[(_ROOT, *leaf)])
    file = FilePath(path)
    _check_place(file, max_shard_size)
    if file.suffix == ".safetensors":
        _write_all({file: named}, leaves)
        return
    file.mkdir(parents=True, exist_ok=True)
    shards = _shards(named, max_shard_size)
    if len(shards) == 1:
        _write_all({file / _ALL: named}, leaves)
        _remove_others(file, {_ALL})
        return
    files = {
        file / f"model-{i:05}-of-{len(shards):05}.safetensors": shard
        for i, shard in enumerate(shards, 1)
    }
    places = {name: part.name for part, shard in files.items() for name in shard}
    index = {
        "metadata": {"total_size": sum(map(_size, named.values()))},
        "weight_map": dict(sorted(places.items())),
    }
    _write_all(files, leaves, file / _INDEX, json.dumps(index, indent=2))
    _remove_others(file, {_INDEX, *(part.name for part in files)})


def _check_place(file: FilePath, max_shard_size: int | None) -> None:
    if max_shard_size is not None and (type(max_shard_size) is not int or max_shard_size < 1):
        raise ValueError(
            f"max_shard_size is a number of bytes, found {max_shard_size!r}: write for example "
            "`max_shard_size=5 * 10**9`"
        )
    if file.suffix == ".safetensors" and max_shard_size is not None:
        raise ValueError(
            f"{file} is one file, and max_shard_size={max_shard_size} may need several: name a "
            f"folder, `nnx.save_weights(model, {str(file.parent)!r}, ...)`"
        )
    if file.suffix in _OTHER_SUFFIXES and not file.is_dir():
        raise ValueError(
            f"{file} would be a folder, as it does not end in .safetensors, the only format that "
            f"is written: `nnx.save_weights(model, {str(file.with_suffix('.safetensors'))!r})`"
        )


def _remove_others(folder: FilePath, kept: set[str]) -> None:
    """Removes from a folder what was saved there before: others would take it for the model."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name != _INDEX):
        if _OWN.fullmatch(file.name) and file.name not in kept:
            file.unlink()


def _shards(named: Named, limit: int | None) -> list[Named]:
    """Parts arrays into files of so many bytes; those of one link stay together."""
    shards: list[Named] = [{}]
    size, last = 0, None
    for name, link in named.items():
        if link is not last:
            size += _size(link)
            if limit is not None and shards[-1] and size > limit:
                shards.append({})
                size = _size(link)
        shards[-1][name] = last = link
    return shards


def _size(link: Link) -> int:
    return sum(zeros(slot.shape, slot.dtype).nbytes for slot in link.slots)


def _write_all(
    files: Mapping[FilePath, Named],
    leaves: Mapping[Path, Any],
    index: FilePath | None = None,
    content: str = "",
) -> None:
    """Writes files, and an index of them: all of them, or if one fails none."""
    with contextlib.ExitStack() as stack:  # each takes its place when all are written
        if index is not None:
            part = stack.enter_context(replacing(index))
            part.write_text(content, encoding="utf-8")
        for file, named in files.items():
            _write(stack.enter_context(replacing(file)), named, leaves)
        if index is not None:
            # It would lead to old shards and new ones, should the process end in between.
            index.unlink(missing_ok=True)


def _write(part: FilePath, named: Named, leaves: Mapping[Path, Any]) -> None:
    arrays: dict[str, np.ndarray] = {}
    hosted: dict[Path, np.ndarray] = {}
    for link in {id(link): link for link in named.values()}.values():
        try:
            made = link.save([_weight(slot, leaves, hosted) for slot in link.slots])
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"{', '.join(map(str, link.slots))} cannot be saved as "
                f"{', '.join(map(str, link.sources))}: {error}"
            ) from error
        for name, array in zip(link.sources, made, strict=True):
            assert name is not None
            if array.dtype.name not in FORMAT_NAMES:
                raise TypeError(
                    f"cannot save {format_path(link.slots[0].address)}: safetensors has no "
                    f"{array.dtype}; cast it, `x.astype(jnp.float32)`"
                )
            arrays[name] = array
    write_arrays(part, {name: arrays[name] for name in named}, _METADATA)


def _weight(slot: Slot, leaves: Mapping[Path, Any], hosted: dict[Path, np.ndarray]) -> np.ndarray:
    if slot.leaf not in hosted:
        array = on_host(slot.leaf, leaves[(_ROOT, *slot.leaf)])
        assert array is not None
        hosted[slot.leaf] = array
    return hosted[slot.leaf][slot.index]
