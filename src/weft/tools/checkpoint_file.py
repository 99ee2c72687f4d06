"""The file of a checkpoint: what its bytes mean, and how it is replaced.

The file is a *header* (magic bytes, version, length and CRC32 of the manifest), the *manifest*
(JSON: for every *entry* its path, dtype, shape, place and CRC32, and the plain data) and the bytes
of all arrays, one after the other. There is no code in it, and every byte is covered by a
checksum, so that a damaged file is told from a good one. A file is written beside its final name
and moved there when complete, so that a process that is killed leaves the former file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path as FilePath
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from weft._core.errors import WeftError
from weft._core.path import Path, format_path

MAGIC = b"WEFTCKPT"
VERSION = 1
_HEADER = struct.Struct("<8sIQI")


class CheckpointError(WeftError, ValueError):
    """A checkpoint file is damaged, or is none."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array or number of a checkpoint.

    Attributes:
      path: where it is: attribute names, positions and keys.
      value: the array, as NumPy array or typed PRNG key array; or a Python number.
      weak_type: whether it was a weakly typed JAX scalar, as `jnp.asarray(1.0)` is.
    """

    path: Path
    value: Any
    weak_type: bool = False


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
      entries: the arrays and numbers by path.
      data: the plain data given to `save`.
    """

    entries: dict[Path, Entry]
    data: Any


def write(file: FilePath, leaves: Iterable[tuple[Path, Any]], data: Any) -> None:
    """Writes a checkpoint file in place of the former one; see `checkpoint.save`."""
    records, buffers, start = [], [], 0
    for path, value in leaves:
        record, buffer = _encode(path, value)
        records.append({**record, "start": start})
        buffers.append(buffer)
        start += len(buffer)
    manifest = json.dumps({"entries": records, "data": data}).encode()
    header = _HEADER.pack(MAGIC, VERSION, len(manifest), zlib.crc32(manifest))
    with _replacing(file) as stream:
        for part in (header, manifest, *buffers):
            stream.write(part)


def read(file: FilePath) -> Checkpoint:
    """Reads a checkpoint file; see `checkpoint.load`."""
    with file.open("rb") as stream:
        try:
            return _read(file, stream)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{file} is damaged: its manifest makes no sense ({error!r}); use another one"
            ) from error


# -- entries as bytes


def is_key(value: Any) -> bool:
    """Says whether a value is a typed PRNG key array, concrete or abstract."""
    return isinstance(value, (jax.Array, jax.ShapeDtypeStruct)) and jnp.issubdtype(
        value.dtype, jax.dtypes.prng_key
    )


def _encode(path: Path, value: Any) -> tuple[dict[str, Any], bytes]:
    if unknown := [key for key in path if type(key) not in (str, int)]:
        raise TypeError(
            f"cannot save {format_path(path)}: the key {unknown[0]!r} is neither a name nor an int"
        )
    record: dict[str, Any] = {"path": path}
    if isinstance(value, (bool, int, float)):
        return {**record, "number": value}, b""
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        raise TypeError(
            f"cannot save {format_path(path)}: parts of the array are on other hosts; gather it "
            "first, or save with Orbax"
        )
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(
            f"cannot save {format_path(path)}: expected an array, PRNG key or number, found "
            f"{type(value).__name__}"
        )
    if isinstance(value, jax.Array):
        if is_key(value):
            record["key"] = str(jax.random.key_impl(value))
            value = jax.random.key_data(value)
        elif value.weak_type:
            record["weak_type"] = True
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.names is not None:
        raise TypeError(f"cannot save {format_path(path)}: an array of dtype {array.dtype}")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    buffer = array.tobytes()
    return {
        **record,
        "dtype": array.dtype.name,
        "shape": array.shape,
        "crc32": zlib.crc32(buffer),
    }, buffer


def _read(file: FilePath, stream: BinaryIO) -> Checkpoint:
    size = os.fstat(stream.fileno()).st_size
    manifest, begin = _read_manifest(file, stream, size)
    entries, end = {}, begin
    for record in manifest["entries"]:
        entry, length = _decode(file, stream, record, begin, end, size)
        entries[entry.path] = entry
        end += length
    if end != size:
        raise CheckpointError(
            f"{file} is damaged: {size} bytes long, its arrays end at {end}; use another one"
        )
    return Checkpoint(entries, manifest["data"])


def _decode(
    file: FilePath, stream: BinaryIO, record: Any, begin: int, end: int, size: int
) -> tuple[Entry, int]:
    """Returns the entry of a record and how many bytes it takes."""
    path = tuple(record["path"])
    if "number" in record:
        return Entry(path, record["number"]), 0
    dtype, shape = jnp.dtype(record["dtype"]), tuple(record["shape"])
    if dtype.hasobject or not all(type(n) is int and n >= 0 for n in shape):
        raise CheckpointError(f"{file} is damaged: {format_path(path)} has no possible shape")
    length = math.prod(shape) * dtype.itemsize
    place = begin + record["start"]
    if place != end or place + length > size:
        raise CheckpointError(
            f"{file} is damaged: {format_path(path)} takes {length} bytes from {place}, the file "
            f"has {size}; use another one"
        )
    stream.seek(place)
    buffer = stream.read(length)
    if zlib.crc32(buffer) != record["crc32"]:
        raise CheckpointError(
            f"{file} is damaged: the bytes of {format_path(path)} do not have the checksum that "
            "they were saved with; use another one"
        )
    value: Any = np.frombuffer(buffer, dtype).reshape(shape)
    if "key" in record:
        value = jax.random.wrap_key_data(jnp.asarray(value), impl=record["key"])
    return Entry(path, value, record.get("weak_type", False)), length


def _read_manifest(file: FilePath, stream: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Returns the manifest and where the bytes of the arrays begin."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise CheckpointError(f"{file} is no checkpoint, or its beginning is damaged")
    _, version, length, checksum = _HEADER.unpack(header)
    if version != VERSION:
        raise CheckpointError(
            f"{file} has format version {version}, and this Weft reads version {VERSION}: "
            "it is damaged, or of a newer Weft: `pip install -U weft`"
        )
    manifest = stream.read(length) if length <= size else b""
    if len(manifest) != length or zlib.crc32(manifest) != checksum:
        raise CheckpointError(f"{file} is damaged: its manifest does not have its checksum")
    return json.loads(manifest), _HEADER.size + length


# -- replacing the file


@contextlib.contextmanager
def _replacing(file: FilePath) -> Iterator[BinaryIO]:
    """Opens a file beside the given one, which it replaces once it is written and on disk."""
    _remove_leftovers(file)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
        _sync_folder(file.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(file)
        raise


def _sync_folder(folder: FilePath) -> None:
    """Makes a rename durable; Windows has no such call on folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(file: FilePath) -> None:
    """Removes what processes that were killed while saving have left."""
    if os.name != "posix":  # elsewhere there is no harmless way to ask whether a process lives
        return
    for part in file.parent.glob(f".{file.name}.*.part"):
        process = part.name.split(".")[-2]
        if process.isdecimal() and not _is_alive(int(process)):
            part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
