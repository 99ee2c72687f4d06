"""Reading a step of a run: every leaf checked, and placed as the one that it replaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from weft._core.path import Path, format_path
from weft._saving import storage
from weft._saving.dtypes import DTYPES
from weft._saving.facts import Fact, fits
from weft._saving.manifest import Manifest, damaged, is_stored, name_in_storage
from weft._saving.place import place, sharding_of
from weft._saving.processes import rows_of_all
from weft._saving.shards import Box, from_kept, joined_checksum, kept_dtype, kept_shape, parts
from weft._saving.write_step import ARRAYS

_BATCH = 1 << 29  # bytes that are on the host before they go to the devices


@dataclasses.dataclass(frozen=True)
class _Read:
    """A leaf to read: where it was, where it goes, and how it is read."""

    name: str
    fact: Fact
    path: Path
    like: np.ndarray | jax.ShapeDtypeStruct


def read(
    folder: FilePath,
    manifest: Manifest,
    sources: Mapping[Path, Path],
    wanted: Mapping[Path, Fact],
    olds: Mapping[Path, Any],
) -> dict[Path, Any]:
    """Reads leaves.

    Args:
      folder: that of the step.
      manifest: its manifest.
      sources: by path in the objects the path that was saved.
      wanted: what is known of the leaves in the objects.
      olds: those leaves; may be abstract.

    Raises:
      CheckpointError: naming the array, if one is not as it was saved.
    """
    values, reads = {}, []
    for path, source in sources.items():
        fact = manifest.facts[source]
        if is_stored(fact):
            name = name_in_storage(source)
            reads.append(_Read(name, fact, path, _like(fact, olds[path])))
        else:
            empty = np.zeros(kept_shape(fact), kept_dtype(fact)) if fact.number is None else None
            value = fact.number if empty is None else from_kept(empty, fact)
            values[path] = place(value, fact, olds[path], wanted[path])
    for batch in _batches(reads):
        arrays = _load_checked(folder, manifest, batch)
        for item in batch:
            array = arrays.pop(item.name)
            values[item.path] = _placed(array, item, olds[item.path], wanted[item.path])
    return values


def _like(fact: Fact, old: Any) -> np.ndarray | jax.ShapeDtypeStruct:
    """Returns how an array is read: onto the devices if each gets a part, else onto the host."""
    dtype, shape = kept_dtype(fact), kept_shape(fact)
    sharding = sharding_of(old)
    if (
        isinstance(sharding, NamedSharding)
        and not sharding.is_fully_replicated
        and jax.dtypes.canonicalize_dtype(dtype) == dtype
    ):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _batches(reads: Sequence[_Read]) -> Iterator[list[_Read]]:
    batch: list[_Read] = []
    size = 0
    for item in reads:
        more = item.like.size * item.like.dtype.itemsize
        if batch and (size + more > _BATCH or any(x.fact is item.fact for x in batch)):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += more
    if batch:
        yield batch


def _load_checked(folder: FilePath, manifest: Manifest, batch: Sequence[_Read]) -> dict[str, Any]:
    """Reads some arrays, as they are kept.

    Raises:
      CheckpointError: in every process, if one of them finds something damaged.
    """
    arrays, faults = _load(folder, batch)
    spread, row = [], [(0, False)]
    for item in batch:
        checks = manifest.checks[item.name]
        found = [(0, False)] * len(checks)
        if item.name in arrays:
            found = parts(arrays[item.name], [box for box, _ in checks])
        if isinstance(item.like, jax.ShapeDtypeStruct):
            spread += [(item, check) for check in checks]
            row += found
        elif item.name in arrays:
            pairs = zip(checks, found, strict=True)
            faults += [text for check, part in pairs for text in _fault(item, check, [part])]
    row[0] = len(faults), False
    rows = rows_of_all(np.array(row, np.uint32)).tolist()
    for process, ((count, _), *_) in enumerate(rows):
        if count:
            one = f"process {process} cannot read its part of it"
            raise damaged(folder, faults[0] if faults else one)
    for (item, check), *found in zip(spread, *[row[1:] for row in rows], strict=True):
        for text in _fault(item, check, found):
            raise damaged(folder, text)
    return arrays


def _fault(item: _Read, check: tuple[Box, int], found: Sequence[Any]) -> list[str]:
    box, expected = check
    if joined_checksum(found, box, item.like.dtype) == expected:
        return []
    where = format_path(item.fact.path)
    return [f"the bytes of {where} do not have the checksum that they were saved with"]


def _load(folder: FilePath, batch: Sequence[_Read]) -> tuple[dict[str, Any], list[str]]:
    """Returns the arrays that can be read, and what is wrong."""
    try:
        arrays = storage.load(folder / ARRAYS, {item.name: item.like for item in batch})
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # no memory on the devices
            raise
        names = ", ".join([format_path(item.fact.path) for item in batch[:3]])
        more = f" or another of {len(batch)} arrays" if len(batch) > 3 else ""
        return {}, [f"{names}{more} cannot be read ({type(error).__name__}: {error})"]
    faults = []
    for item in batch:
        array = arrays[item.name]
        if (array.shape, array.dtype) != (item.like.shape, item.like.dtype):
            faults.append(f"{format_path(item.fact.path)} is {array.dtype}{list(array.shape)}")
            del arrays[item.name]
    return arrays, faults


def _placed(array: Any, item: _Read, old: Any, wanted: Fact) -> Any:
    """Returns an array as what takes the place of a leaf."""
    array = from_kept(array, item.fact)
    if isinstance(array, np.ndarray):
        return place(array, item.fact, old, wanted)
    if item.fact.key is not None:
        return jax.random.wrap_key_data(array, impl=item.fact.key)
    return array if fits(item.fact, wanted) else array.astype(DTYPES[wanted.dtype])
