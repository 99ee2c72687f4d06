"""The manifest of a checkpoint: JSON that says all that its arrays do not, and checks every byte.

It holds the fact of each leaf, the checksum of each shard, what is shared, the user's facts, and
the size of each file beside it, of small ones the checksum as well. Its first bytes are its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import jax

from weft._core.errors import CheckpointError
from weft._core.path import Path
from weft._saving import names
from weft._saving.facts import Fact
from weft._saving.leaves import Shared
from weft._saving.replacing import sync_file, sync_folder
from weft._saving.shards import Box, is_cover, kept_shape

FORMAT = 1
NAME = "manifest.json"
_SMALL = 1 << 20  # larger files hold arrays, which have checksums of their own
_START, _MIDDLE, _END = b'{"crc32": "', b'", "manifest": ', b"}\n"

Checks = Mapping[str, list[tuple[Box, int]]]
"""By name of the array, where its shards are and the checksum of each."""


class NewerFormatError(CheckpointError):
    """A checkpoint that is sound, but of a format that this version does not know."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is known of a checkpoint.

    Attributes:
      facts: what is known of each leaf.
      shared: further paths.
      checks: of every array that has elements its shards.
      files: by relative name the size of each file, and its checksum or None.
      meta: the user's facts.
      metrics: numbers by name.
    """

    facts: Mapping[Path, Fact]
    shared: Shared
    checks: Checks
    files: Mapping[str, tuple[int, int | None]]
    meta: Any
    metrics: Mapping[str, float]

    def write(self, folder: FilePath) -> None:
        """Writes the manifest of a folder, on disk when this returns."""
        from weft import __version__

        record = {
            "format": FORMAT,
            "weft": __version__,
            "jax": jax.__version__,
            "leaves": [fact.to_json() for fact in self.facts.values()],
            "shared": [
                [names.to_json(p), names.to_json(first)] for p, first in self.shared.items()
            ],
            "shards": self.checks,
            "files": self.files,
            "metrics": self.metrics,
            "meta": self.meta,
        }
        text = json.dumps(record).encode()
        file = folder / NAME
        file.write_bytes(_START + b"%08x" % zlib.crc32(text) + _MIDDLE + text + _END)
        sync_file(file)
        sync_folder(folder)

    @staticmethod
    def read(folder: FilePath) -> Manifest:
        """Reads the manifest of a folder.

        Raises:
          CheckpointError: if it is damaged, or of another format.
          OSError: if it cannot be read.
        """
        file = folder / NAME
        try:
            data = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise damaged(folder, f"{NAME} is missing") from None
        at = len(_START) + 8
        text = data[at + len(_MIDDLE) : -len(_END)]
        whole = _START + b"%08x" % zlib.crc32(text) + _MIDDLE + text + _END
        if data != whole:
            raise damaged(folder, f"{NAME} does not have its checksum")
        try:
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise NewerFormatError(
                    f"{folder} has format {record['format']}, written by Weft {record['weft']}, "
                    f"and this Weft reads format {FORMAT}: `pip install -U weft`"
                )
            return _manifest(record)
        except CheckpointError as error:
            if str(folder) in str(error):
                raise
            raise CheckpointError(f"cannot read {folder}: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise damaged(folder, f"{NAME} makes no sense ({error!r})") from error

    def check_files(self, folder: FilePath, *, content: bool) -> None:
        """Checks that all files are there and as long as they were; and what is in small ones.

        Raises:
          CheckpointError: naming the first that is not.
          OSError: if they cannot be read.
        """
        for name, (size, expected) in self.files.items():
            file = folder / name
            try:
                found = os.stat(file).st_size
                if found != size:
                    raise damaged(folder, f"{name} has {found} bytes instead of {size}")
                if content and expected is not None and zlib.crc32(file.read_bytes()) != expected:
                    raise damaged(folder, f"{name} does not have its checksum")
            except (FileNotFoundError, NotADirectoryError):
                raise damaged(folder, f"{name} is missing") from None


def _manifest(record: Any) -> Manifest:
    leaves = [Fact.from_json(entry) for entry in record["leaves"]]
    facts = {fact.path: fact for fact in leaves}
    checks = {
        name: [(tuple([(int(a), int(b)) for a, b in box]), int(crc)) for box, crc in shards]
        for name, shards in record["shards"].items()
    }
    arrays = {name_in_storage(path): fact for path, fact in facts.items() if is_stored(fact)}
    if len(facts) != len(leaves) or arrays.keys() != checks.keys():
        raise ValueError("the leaves are not those that have shards")
    for name, fact in arrays.items():
        if not is_cover([box for box, _ in checks[name]], kept_shape(fact)):
            raise ValueError(f"the shards of {name} are not all of it")
    return Manifest(
        facts,
        {names.from_json(path): names.from_json(first) for path, first in record["shared"]},
        checks,
        {name: (size, crc) for name, (size, crc) in record["files"].items()},
        record["meta"],
        record["metrics"],
    )


def is_stored(fact: Fact) -> bool:
    """Says whether a leaf is in the storage: not numbers, nor arrays without elements."""
    return fact.number is None and 0 not in fact.shape


def name_in_storage(path: Path) -> str:
    """Returns the name of an array in the storage: that of its path, without what files dislike."""
    from urllib.parse import quote

    return quote(names.name_of(path), safe="")


def files_in(folder: FilePath) -> dict[str, tuple[int, int | None]]:
    """Returns size and checksum of each file in a folder, all of which are on disk after this."""
    found = {}
    for place, _, inside in os.walk(folder):
        for name in sorted(inside):
            file = FilePath(place, name)
            sync_file(file)
            size = file.stat().st_size
            check = zlib.crc32(file.read_bytes()) if size <= _SMALL else None
            found[file.relative_to(folder).as_posix()] = (size, check)
        sync_folder(FilePath(place))
    return found


def damaged(folder: FilePath, what: str) -> CheckpointError:
    """Returns the error that says what of a checkpoint is damaged."""
    return CheckpointError(f"{folder} is damaged: {what}; use another step")
