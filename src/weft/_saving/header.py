"""The header of a safetensors file, read with distrust, and the arrays that it points to.

A file is the length of the header (8 bytes), the header (JSON: by name dtype, shape and place of
each array, and a mapping of texts) and the bytes of all arrays, which cover the rest with neither
gaps nor overlaps. All is checked before anything of the size that a header claims is allocated.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from weft._core.errors import CheckpointError
from weft._saving.dtypes import FORMAT_DTYPES
from weft._saving.names import RESERVED

LIMIT_HEADER = 100_000_000
"""How many bytes a header may have: what the safetensors package takes."""
LIMIT_ARRAYS = 100_000
"""How many arrays a file may have."""
LIMIT_AXES = 64
_FORMER = b"WEFTCKPT"
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # of those that no dtype of NumPy stores alike


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What a header says of an array: dtype in the words of the format, shape, place."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header:
    """The header of a file, and the file's bytes.

    Args:
      file: its name.

    Attributes:
      tensors: what is said of each array, by name.
      metadata: texts by name.

    Raises:
      CheckpointError: if there is no sound header, or the file is not as long as it says.
      OSError: if the file cannot be read.
    """

    def __init__(self, file: Path):
        self.file = file
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(8)
            if start == _FORMER:
                raise CheckpointError(
                    f"{file} is of a former format of Weft, which is no longer read: restore it "
                    "by the version that wrote it, and `nnx.save(file, model=model)` anew"
                )
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(size - 8, LIMIT_HEADER):
                raise self._damaged(f"{size} bytes, of which the header would be {length}")
            text = stream.read(length)
            self._begin = 8 + length
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        if text.count(b'"data_offsets"') > LIMIT_ARRAYS:
            raise self._damaged(f"more than {LIMIT_ARRAYS} arrays")
        try:
            record = json.loads(text.decode(), object_pairs_hook=_unique)
            self.metadata = self._metadata(record.pop(RESERVED, {}))
            self.tensors = {name: self._tensor(name, entry) for name, entry in record.items()}
        except CheckpointError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise self._damaged(f"its header makes no sense, {error!r}") from error
        self._check_cover(size - self._begin)

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.file} is damaged, or no safetensors file: {what}; use another one"
        )

    def _metadata(self, record: Any) -> dict[str, str]:
        if not all(type(text) is str for text in record.values()):
            raise self._damaged("its metadata are not texts")
        return record

    def _tensor(self, name: str, entry: Any) -> Tensor:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._damaged(f"the header says more of {name!r} than the format has")
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise self._damaged(f"{name!r} has the shape {shape} at {begin} to {end}")
        if len(shape) > LIMIT_AXES:
            raise self._damaged(f"{name!r} has {len(shape)} axes")
        bits = _BITS.get(dtype) or 8 * FORMAT_DTYPES[dtype].itemsize
        if 8 * (end - begin) != math.prod(shape) * bits:
            raise self._damaged(f"{name!r} is {dtype}{shape}, and has {end - begin} bytes")
        return Tensor(dtype, tuple(shape), begin, end)

    def _check_cover(self, size: int) -> None:
        place = 0
        for name, tensor in sorted(self.tensors.items(), key=lambda x: (x[1].begin, x[1].end)):
            if tensor.begin != place:
                raise self._damaged(f"{name!r} is at {tensor.begin}, and should be at {place}")
            place = tensor.end
        if place != size:
            raise self._damaged(f"its arrays have {place} bytes, and there are {size}")

    def read(self, name: str, *, copy: bool) -> np.ndarray:
        """Returns an array, as part of the mapped file or in memory of its own.

        What was copied is no longer kept in memory as a part of the file: else all of a large one
        would be there twice in the end.
        """
        tensor = self.tensors[name]
        dtype = FORMAT_DTYPES[tensor.dtype]
        count = math.prod(tensor.shape)
        if not count:
            return np.empty(tensor.shape, dtype)
        array = np.frombuffer(self._map, dtype, count, self._begin + tensor.begin)
        if copy:
            array = array.copy()
            self._forget(self._begin + tensor.begin, self._begin + tensor.end)
        return array.reshape(tensor.shape)

    def _forget(self, begin: int, end: int) -> None:
        """Gives back the memory of a part of the mapped file, which can be read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            start = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
            size = end // mmap.PAGESIZE * mmap.PAGESIZE - start
            if size > 0:
                self._map.madvise(mmap.MADV_DONTNEED, start, size)


def is_tensor_file(file: Path) -> bool:
    """Says whether a file begins as those of safetensors do: a length that fits, and JSON.

    Raises:
      OSError: if it cannot be read.
    """
    with file.open("rb") as stream:
        start = stream.read(9)
        size = os.fstat(stream.fileno()).st_size
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a name stands there twice")
    return record
