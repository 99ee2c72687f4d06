"""Arrays as a checkpoint keeps them: copies that training cannot change, in shards with checksums.

An array that every device has as a whole, or that is in the memory of the host, is *whole*: a copy
in the host's memory is written by the first process. Any other one is written in shards, each by a
process that has it. Dtypes that the storage does not have are kept as integers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weft._saving.dtypes import DTYPES
from weft._saving.facts import Fact, is_key

Box = tuple[tuple[int, int], ...]
"""Where a shard is in its array: for each axis where it begins and where it ends."""

_BY_VALUE = {"int2": "int8", "int4": "int8", "uint2": "uint8", "uint4": "uint8"}
_BY_BITS = {"float8_e4m3": "uint8", "float6_e2m3fn": "uint8", "float6_e3m2fn": "uint8"}


@dataclasses.dataclass(frozen=True)
class Held:
    """An array as it is given to the storage, and what of it this process writes.

    Attributes:
      array: of NumPy if it is whole.
      pieces: for each shard that this process writes where it is, and its values on the host.
    """

    array: np.ndarray | jax.Array
    pieces: list[tuple[Box, np.ndarray]]

    def checks(self) -> list[tuple[Box, int]]:
        """Returns the checksum of each piece."""
        return [(box, checksum(piece)) for box, piece in self.pieces]


def checksum(array: np.ndarray) -> int:
    """Returns the CRC32 of the bytes of an array, in the order of its elements."""
    if not array.size:
        return 0
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


# -- what is kept


def kept_dtype(fact: Fact) -> np.dtype:
    """Returns the dtype in which an array is kept."""
    name = "uint32" if fact.key else fact.dtype
    return DTYPES[_BY_VALUE.get(name) or _BY_BITS.get(name) or name]


def kept_shape(fact: Fact) -> tuple[int, ...]:
    """Returns the shape in which an array is kept: keys have a further axis, of their data."""
    return fact.shape + (_key_data_shape(fact.key) if fact.key else ())


@functools.cache
def _key_data_shape(implementation: str) -> tuple[int, ...]:
    make = lambda: jax.random.key_data(jax.random.key(0, impl=implementation))  # noqa: E731
    return jax.eval_shape(make).shape


def to_kept(array: Any) -> Any:
    """Returns an array, of NumPy or JAX, as it is kept."""
    name = array.dtype.name
    if name in _BY_VALUE:
        return array.astype(_BY_VALUE[name])
    if name in _BY_BITS:
        return _same_bits(array, _BY_BITS[name])
    return array


def from_kept(array: Any, fact: Fact) -> Any:
    """Returns the array that was kept as the given one; of keys the data."""
    if fact.key or fact.dtype not in {**_BY_VALUE, **_BY_BITS}:
        return array
    if fact.dtype in _BY_VALUE:
        return array.astype(DTYPES[fact.dtype])
    return _same_bits(array, fact.dtype)


def _same_bits(array: Any, dtype: str) -> Any:
    if isinstance(array, jax.Array):
        return jax.lax.bitcast_convert_type(array, DTYPES[dtype])
    return array.view(DTYPES[dtype])


def hold(value: Any) -> Held:
    """Returns an array as it is kept, of which the values stay, whatever happens to the given one.

    On a CPU arrays of JAX lend their memory to who reads them, and donating it writes there: so
    there is a copy. From other devices values come to the host before this returns.
    """
    array = jax.random.key_data(value) if is_key(value) else value
    if isinstance(array, jax.Array) and not _is_whole(array):
        on_cpu = next(iter(array.sharding.device_set)).platform == "cpu"
        array = to_kept(jnp.copy(array) if on_cpu else array)
        return Held(array, _pieces(array))
    if isinstance(array, jax.Array):
        array = array.addressable_data(0)
    is_lent = not isinstance(array, jax.Array) or next(iter(array.devices())).platform == "cpu"
    whole = np.array(array, order="C") if is_lent else np.asarray(array)
    if whole.dtype.byteorder == ">":
        whole = whole.astype(whole.dtype.newbyteorder("<"))
    whole = to_kept(whole)
    is_writer = jax.process_index() == 0
    return Held(whole, [(whole_box(whole.shape), whole)] if is_writer else [])


def _is_whole(array: jax.Array) -> bool:
    """Says whether the first process has all of an array."""
    is_here = array.is_fully_addressable or any(
        device.process_index == 0 for device in array.sharding.device_set
    )
    return array.is_fully_replicated and is_here


# -- shards


def whole_box(shape: Sequence[int]) -> Box:
    """Returns where a whole array is in itself."""
    return tuple([(0, n) for n in shape])


def box_of(index: tuple[slice, ...], shape: Sequence[int]) -> Box:
    """Returns the place that slices of an array of a shape say."""
    return tuple([part.indices(n)[:2] for part, n in zip(index, shape, strict=True)])


def is_cover(boxes: Sequence[Box], shape: Sequence[int]) -> bool:
    """Says whether places are within an array, and as large as it is."""
    sizes = [
        math.prod(end - begin for begin, end in box)
        for box in boxes
        if len(box) == len(shape)
        and all(0 <= begin <= end <= n for (begin, end), n in zip(box, shape, strict=True))
    ]
    return len(sizes) == len(boxes) and sum(sizes) == math.prod(shape)


Part = tuple[int, bool]
"""What a process has of a shard that was saved: the checksum of the shard with zeros in the place
of what others have, and whether it has any of it."""


def parts(array: np.ndarray | jax.Array, boxes: Sequence[Box]) -> list[Part]:
    """Returns what this process has of each of the shards in which an array was saved.

    Args:
      array: the array as it is kept; one of JAX may be sharded in another way than it was.
      boxes: where the shards that were saved are in it.
    """
    own = [(whole_box(array.shape), array)] if isinstance(array, np.ndarray) else _pieces(array)
    return [_part(own, box, array.dtype) for box in boxes]


def _pieces(array: jax.Array) -> list[tuple[Box, np.ndarray]]:
    """Returns what this process has of an array, and no process else."""
    shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
    for shard in shards:
        shard.data.copy_to_host_async()
    return [(box_of(shard.index, array.shape), np.asarray(shard.data)) for shard in shards]


def _part(own: list[tuple[Box, np.ndarray]], box: Box, dtype: np.dtype) -> Part:
    shape = [end - begin for begin, end in box]
    joined = None
    for place, piece in own:
        common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, place, strict=True)]
        if any(begin >= end for begin, end in common):
            continue
        inner = piece[_slices(common, place)]
        if list(inner.shape) == shape:
            return checksum(inner), True
        joined = np.zeros(shape, dtype) if joined is None else joined
        joined[_slices(common, box)] = inner
    return (0, False) if joined is None else (checksum(joined), True)


def _slices(inner: Sequence[tuple[int, int]], outer: Box) -> tuple[slice, ...]:
    pairs = zip(inner, outer, strict=True)
    return tuple([slice(begin - start, end - start) for (begin, end), (start, _) in pairs])


def joined_checksum(found: Sequence[Part], box: Box, dtype: np.dtype) -> int:
    """Returns the checksum of a shard, of which every process has given its part.

    But for that of zeros a CRC is linear: so the parts need not come together in one place.
    """
    some = [check for check, has_some in found if has_some]
    if len(some) % 2 == 0:
        size = math.prod(end - begin for begin, end in box) * np.dtype(dtype).itemsize
        some.append(_checksum_of_zeros(size))
    return functools.reduce(operator.xor, some)


@functools.lru_cache(maxsize=64)
def _checksum_of_zeros(size: int) -> int:
    return zlib.crc32(np.zeros(size, np.uint8).data) if size else 0
