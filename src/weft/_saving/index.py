"""Shards: several safetensors files and an index that says which array is in which of them.

The index is JSON with a `weight_map`, as large models of others are published with. The files that
it names stand beside it; whatever would lead elsewhere is refused before anything is opened.
"""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any

from weft._core.errors import CheckpointError
from weft._core.path import Path
from weft._saving import names
from weft._saving.facts import Fact
from weft._saving.tensor_file import TensorFile

INDEX = ".safetensors.index.json"
LIMIT_INDEX = 100 * 2**20


class IndexedFiles:
    """Files that are one, as `TensorFile` is.

    Args:
      file: the name of the index.

    Attributes:
      file: its name.
      facts: what is known of each leaf.
      shared: further paths; there are none.
      names: by name the path of each leaf.
      meta: the `metadata` of the index.

    Raises:
      CheckpointError: if the index makes no sense, names files outside of its folder, or others
        than there are.
      OSError: if it cannot be read.
    """

    facts: dict[Path, Fact]
    names: dict[str, Path]
    meta: Any

    def __init__(self, file: FilePath):
        self.file = file
        self.shared: dict[Path, Path] = {}
        weight_map = self._read_index()
        files = {shard: TensorFile(file.parent / shard) for shard in self._checked(weight_map)}
        self.facts, self._opened, self.names = {}, {}, {}
        for name, shard in weight_map.items():
            path, opened = names.path_of(name), files[shard]
            if path not in opened.facts:
                raise CheckpointError(f"{file} has {name!r} in {shard}, where it is not")
            self.facts[path], self._opened[path] = opened.facts[path], opened
            self.names[name] = path

    def _read_index(self) -> dict[str, str]:
        if self.file.stat().st_size > LIMIT_INDEX:
            raise CheckpointError(f"{self.file} is no index: it has more than {LIMIT_INDEX} bytes")
        try:
            index = json.loads(self.file.read_bytes())
            weight_map = index["weight_map"]
            self.meta = index.get("metadata", {})
            if not all(type(x) is str for pair in weight_map.items() for x in pair):
                raise TypeError("names are texts")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{self.file} is no index of safetensors files ({error!r}): expected "
                '`{"weight_map": {"name": "file.safetensors"}}`'
            ) from error
        return weight_map

    def _checked(self, weight_map: dict[str, str]) -> list[str]:
        """Returns the names of the shards, which stand beside the index, all of them."""
        shards = sorted(set(weight_map.values()))
        for shard in shards:
            place = self.file.parent / shard
            if shard in ("", ".", "..") or "/" in shard or "\\" in shard or "\0" in shard:
                what = "which is not in its own folder"
            elif place.is_symlink():
                what = "which is a link: copy what it leads to"
            elif not place.is_file():
                what = "which is not there: download all shards"
            else:
                continue
            raise CheckpointError(f"{self.file} names the file {shard!r}, {what}")
        return shards

    def read(self, path: Path, *, copy: bool) -> Any:
        """Returns an array; see `TensorFile.read`."""
        return self._opened[path].read(path, copy=copy)
