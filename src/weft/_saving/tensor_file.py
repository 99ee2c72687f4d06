"""The file: safetensors, with what that format cannot say as JSON in its metadata.

The metadata of a file of ours has the two texts `weft` (JSON) and `weft.crc32` (its checksum). The
JSON says for each array its fact and the checksum of its bytes, all numbers, what is shared, the
format, and the user's facts. Header and JSON have to agree, so every byte is covered.

Checksums have a fixed number of digits: the header is written with zeros in their place, so that
they can be computed while the disk works, and once more when they are known.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as FilePath
from typing import Any

import jax
import numpy as np

from weft._core.errors import CheckpointError
from weft._core.path import Path, format_path
from weft._saving import names
from weft._saving.dtypes import FORMAT_DTYPES, FORMAT_NAMES, from_stored, stored_as, to_stored
from weft._saving.facts import Fact
from weft._saving.header import LIMIT_ARRAYS, LIMIT_HEADER, Header, Tensor
from weft._saving.leaves import Shared
from weft._saving.replacing import sync_file
from weft._saving.shards import checksum

FORMAT = 1
FACTS, CHECKSUM = "weft", "weft.crc32"


def write(
    file: FilePath,
    leaves: Iterable[tuple[Fact, np.ndarray | None]],
    shared: Shared,
    meta: Any,
) -> None:
    """Writes a file of facts and arrays; those of Python numbers are None.

    Raises:
      ValueError: if there is too much of it for one file.
      OSError: if it cannot be written.
    """
    stored, arrays, numbers = {}, {}, []
    for fact, value in leaves:
        name = names.name_of(fact.path)
        if value is None:
            numbers.append(fact.to_json())
        else:
            stored[name], arrays[name] = to_stored(value), fact.to_json()
    metadata = functools.partial(_metadata, arrays, numbers, shared, meta)
    empty = metadata(dict.fromkeys(stored, 0))
    size = len(empty[FACTS])
    if len(arrays) > LIMIT_ARRAYS or 2 * size > LIMIT_HEADER:
        raise ValueError(
            f"cannot save {file}: {len(arrays)} arrays and {size} bytes of facts are more "
            f"than one file takes ({LIMIT_ARRAYS} and {LIMIT_HEADER // 2}); save several files"
        )
    write_arrays(file, stored, empty)
    with ThreadPoolExecutor() as pool:  # the disk and all processors at once
        on_disk = pool.submit(sync_file, file)
        sums = dict(zip(stored, pool.map(checksum, stored.values()), strict=True))
        on_disk.result()
    if not _replace_metadata(file, empty, metadata(sums)):
        write_arrays(file, stored, metadata(sums))


def _metadata(
    arrays: Mapping[str, Any],
    numbers: list[Any],
    shared: Shared,
    meta: Any,
    sums: Mapping[str, int],
) -> dict[str, str]:
    from weft import __version__

    record = {
        "format": FORMAT,
        "weft": __version__,
        "jax": jax.__version__,
        "arrays": {name: {**fact, "crc32": f"{sums[name]:010}"} for name, fact in arrays.items()},
        "numbers": numbers,
        "shared": [[names.to_json(path), names.to_json(first)] for path, first in shared.items()],
        "meta": meta,
    }
    text = json.dumps(record, separators=(",", ":"))
    return {FACTS: text, CHECKSUM: f"{zlib.crc32(text.encode()):010}"}


def write_arrays(
    file: FilePath, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file of arrays, of dtypes that safetensors has, and texts.

    Raises:
      OSError: if it cannot be written.
    """
    from safetensors import SafetensorError, TensorSpec, serialize_file

    stored = {name: to_stored(array) for name, array in arrays.items()}
    specs = {
        name: TensorSpec(
            dtype=array.dtype.name,
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in stored.items()
    }
    try:
        serialize_file(specs, file, dict(metadata))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else 5
        raise OSError(code, os.strerror(code) if number else str(error)) from error


def _replace_metadata(file: FilePath, old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Writes texts of the same lengths into a header, if they stand there as JSON is written.

    They stood in any order, and stand in that of `new`: equal states make equal files.
    """
    before, after = (
        [f'"{name}":{json.dumps(text)}'.encode() for name, text in texts.items()]
        for texts in (old, new)
    )
    with file.open("r+b") as stream:
        header = stream.read(int.from_bytes(stream.read(8), "little"))
        for order in itertools.permutations(before):
            if header.count(found := b",".join(order)) == 1:
                stream.seek(8)
                stream.write(header.replace(found, b",".join(after)))
                return True
    return False


class TensorFile:
    """A file that is open: its facts are read and checked, its arrays not yet.

    Args:
      file: its name.

    Attributes:
      file: its name.
      facts: what is known of each leaf.
      shared: further paths.
      names: by name the path of each leaf; those of a foreign file are its own.
      meta: the user's facts; those of a foreign file are its own metadata.

    Raises:
      CheckpointError: if it is damaged, no safetensors file, or of a newer format.
      OSError: if it cannot be read.
    """

    facts: dict[Path, Fact]
    shared: dict[Path, Path]
    names: dict[str, Path]
    meta: Any

    def __init__(self, file: FilePath):
        self.file = file
        self._header = Header(file)
        self._tensors: dict[Path, tuple[str, int | None]] = {}
        metadata = self._header.metadata
        if FACTS in metadata or any(key.startswith(FACTS) for key in metadata):
            try:
                self._read_facts(self._record(metadata))
            except CheckpointError as error:
                if str(file) in str(error):
                    raise
                raise CheckpointError(f"cannot read {file}: {error}") from error
            except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise self._damaged(f"its facts make no sense ({error!r})") from error
        else:
            self._take_as_foreign()

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.file} is damaged: {what}; use another one")

    def _record(self, metadata: Mapping[str, str]) -> Any:
        text = metadata.get(FACTS, "")
        if metadata.keys() != {FACTS, CHECKSUM} or f"{zlib.crc32(text.encode()):010}" != metadata[
            CHECKSUM
        ].zfill(10):
            raise self._damaged("its facts do not have their checksum")
        record = json.loads(text)
        if record["format"] != FORMAT:
            raise CheckpointError(
                f"{self.file} has format {record['format']}, written by Weft {record['weft']}, and "
                f"this Weft reads format {FORMAT}: `pip install -U weft`"
            )
        return record

    def _read_facts(self, record: Any) -> None:
        tensors = self._header.tensors
        if record["arrays"].keys() != tensors.keys():
            odd = min(record["arrays"].keys() ^ tensors.keys())
            raise self._damaged(f"of the array {odd!r} it has only one of header and facts")
        self.facts = {}
        for name, entry in record["arrays"].items():
            fact = Fact.from_json(entry)
            if names.name_of(fact.path) != name:
                raise self._damaged(f"the path of {name!r} is that of another array")
            self._check_agreement(name, fact, tensors[name])
            self._tensors[fact.path] = name, int(entry["crc32"])
            self.facts[fact.path] = fact
        for entry in record["numbers"]:
            fact = Fact.from_json(entry)
            if fact.number is None or fact.path in self.facts:
                raise self._damaged(f"{format_path(fact.path)} is no number, or there twice")
            self.facts[fact.path] = fact
        pairs = record["shared"]
        self.shared = {names.from_json(path): names.from_json(first) for path, first in pairs}
        self.names = {names.name_of(path): path for path in self.facts}
        self.meta = record["meta"]

    def _check_agreement(self, name: str, fact: Fact, tensor: Tensor) -> None:
        dtype, shape = stored_as("uint32" if fact.key else fact.dtype, fact.shape)
        own = tensor.shape[: len(shape)] if fact.key else tensor.shape
        if (FORMAT_NAMES[dtype], shape) != (tensor.dtype, own):
            raise self._damaged(f"the header says {tensor.dtype}{list(tensor.shape)} of {name!r}")

    def _take_as_foreign(self) -> None:
        self.facts, self.shared, self.names = {}, {}, {}
        self.meta = self._header.metadata
        for name, tensor in self._header.tensors.items():
            path = names.path_of(name)
            dtype = FORMAT_DTYPES.get(tensor.dtype)
            if dtype is None:
                raise CheckpointError(
                    f"cannot read {self.file}: {name!r} is of dtype {tensor.dtype}; Weft reads "
                    f"{', '.join(FORMAT_DTYPES)}"
                )
            self.facts[path] = Fact(path, dtype.name, tensor.shape)
            self._tensors[path], self.names[name] = (name, None), path

    def read(self, path: Path, *, copy: bool) -> Any:
        """Returns a number, or an array as it was saved; of keys their data.

        Args:
          path: which.
          copy: whether into memory of its own; else the file is mapped, where that can be done.

        Raises:
          CheckpointError: if its bytes do not have their checksum.
        """
        fact = self.facts[path]
        if fact.number is not None:
            return fact.number
        name, expected = self._tensors[path]
        array = self._header.read(name, copy=copy)
        if expected is not None and checksum(array) != expected:
            raise self._damaged(
                f"the bytes of {format_path(path)} do not have the checksum that they were saved "
                "with"
            )
        if fact.key is not None or expected is None:
            return array
        return from_stored(array, fact.dtype)
