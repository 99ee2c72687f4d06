"""Saving objects in one file that every tool reads, and loading it, with or without objects."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import jax
import numpy as np

from weft._core.errors import CheckpointError
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._graph import State, from_flat_state
from weft._saving import tensor_file
from weft._saving.collect import collect, match_objects
from weft._saving.facts import Fact, is_key
from weft._saving.header import is_tensor_file
from weft._saving.index import INDEX, IndexedFiles
from weft._saving.meta import check_meta
from weft._saving.place import check_places, place
from weft._saving.replacing import replacing
from weft._saving.torch_file import SUFFIXES, TorchFile

RESTORE_OPTIONS = {"strict", "cast"}


@boundary
def save(file: str | os.PathLike[str], /, *, meta: Any = None, **objects: Any) -> None:
    """Writes the state of objects to a safetensors file, which is replaced as a whole.

    Until the new file is complete and on disk the former one stays, whatever happens. Arrays have
    readable names: `nnx.save(file, model=model)` writes `model.kernel`. What the format of
    safetensors does not have (typed PRNG keys, Python numbers, exact keys and dtypes, what is
    shared, checksums) stands as JSON in its metadata. A Variable that is met twice is written once.
    Every reader of the format opens the file; float8 arrays need one that has them (`nnx.load`,
    `safetensors.torch`; not `safetensors.numpy`, as NumPy itself has no such dtype).

    Args:
      file: its name; the folder must exist.
      meta: facts for the file, such as `{"epoch": 7}`: what JSON can say.
      **objects: models, optimizers, `nnx.Rngs`, metrics, States, or containers of such and of
        arrays.

    Raises:
      TypeError: for what cannot be saved; names the path.
      ValueError: for more than a file takes, and arrays of which parts are on other hosts.
      OSError: if the file cannot be written; the former one is untouched.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> file = tempfile.mkdtemp() + "/model.safetensors"
      >>> nnx.save(file, model=nnx.Linear(2, 3, rngs=nnx.Rngs(0)), meta={"epoch": 7})
      >>> import safetensors.numpy
      >>> sorted(safetensors.numpy.load_file(file))
      ['model.bias', 'model.kernel']
    """
    check_meta(meta)
    found, facts = collect(objects, RESTORE_OPTIONS, "nnx.restore")
    for value in found.leaves.values():
        if isinstance(value, jax.Array) and not is_key(value):
            value.copy_to_host_async()
    values = map(on_host, found.leaves, found.leaves.values())
    pairs = list(zip(facts, values, strict=True))
    with replacing(FilePath(file)) as part:
        tensor_file.write(part, pairs, found.shared, meta)


def on_host(path: Path, value: Any) -> np.ndarray | None:
    """Returns an array in the memory of the host, keys as their data; None for what is none."""
    if isinstance(value, jax.Array):
        if not value.is_fully_addressable:
            raise ValueError(
                f"cannot save {format_path(path)}: parts of the array are on other hosts, and one "
                "file is written by one: use `train.Checkpoints`"
            )
        return np.asarray(jax.random.key_data(value) if is_key(value) else value)
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else None


@boundary
def load(file: str | os.PathLike[str], /) -> SavedFile:
    """Opens a safetensors file, without any objects to put its arrays into.

    Args:
      file: its name; of any safetensors file, whoever wrote it, of an index of several
        (`model.safetensors.index.json`), of a folder with either, or of a file of PyTorch (`.pt`,
        `.pth`, `.bin`, `.ckpt`), which takes PyTorch 2.10 and may hold nothing but weights. A
        safetensors file may have any name.

    Returns:
      Its arrays by name, in a file of others by the names that they have there. They are mapped
      from the file, and checked, when they are asked for.

    Raises:
      CheckpointError: if the file is damaged, none of this format, or of a newer version of it.
      OSError: if it cannot be read.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> file = tempfile.mkdtemp() + "/model.safetensors"
      >>> nnx.save(file, model=nnx.Linear(2, 3, rngs=nnx.Rngs(0)), meta={"epoch": 7})
      >>> saved = nnx.load(file)
      >>> saved
      SavedFile({'model.bias': float32[3], 'model.kernel': float32[2, 3]})
      >>> saved["model.kernel"].shape, saved.meta
      ((2, 3), {'epoch': 7})
    """
    return SavedFile(open_any(FilePath(file)))


Opened = tensor_file.TensorFile | IndexedFiles | TorchFile


def open_any(file: FilePath) -> Opened:
    """Opens a file of any kind that can be read."""
    if file.is_dir():
        found = [*file.glob(f"*{INDEX}")] or [*file.glob("*.safetensors")]
        if not found:
            others = sorted(x for x in file.iterdir() if x.suffix in SUFFIXES)
            other = str(others[0]) if others else f"{file}/model.safetensors"
            raise CheckpointError(
                f"{file} is a folder without files of safetensors: name the file, `{other!r}`"
            )
        if len(found) != 1:
            raise CheckpointError(
                f"{file} is a folder with {len(found)} files of safetensors: name one of them, or "
                f"the index of all, `model{INDEX}`"
            )
        (file,) = found
    if file.name.endswith(INDEX):
        return IndexedFiles(file)
    is_pickle = file.suffix in SUFFIXES and not is_tensor_file(file)
    return TorchFile(file) if is_pickle else tensor_file.TensorFile(file)


class SavedFile(Mapping[str, Any]):
    """The arrays of a file by name, such as `model.blocks.0.kernel`; what `nnx.load` returns.

    An array is mapped from the file and checked when it is asked for; it cannot be written to.
    Typed PRNG keys are arrays of JAX, Python numbers are numbers.

    Attributes:
      meta: the facts that were given to `nnx.save`; of other files their metadata.
      paths: by name, where the array was: names and ints.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> file = tempfile.mkdtemp() + "/count.safetensors"
      >>> nnx.save(file, counts=[nnx.Variable(3)])
      >>> saved = nnx.load(file)
      >>> saved["counts.0"], saved.paths
      (3, {'counts.0': ('counts', 0)})
    """

    meta: Any
    paths: dict[str, Path]

    def __init__(self, opened: Opened):
        self.opened = opened
        self.meta = opened.meta
        self.paths = opened.names

    @boundary
    def __getitem__(self, name: str) -> Any:
        if name not in self.paths:
            some = ", ".join([*itertools.islice(self.paths, 10)])
            more = f" and {len(self) - 10} more: `list(saved)`" if len(self) > 10 else ""
            raise KeyError(f"{self.opened.file} has no {name!r}; it has {some or 'nothing'}{more}")
        path = self.paths[name]
        value, key = self.opened.read(path, copy=False), self.opened.facts[path].key
        return value if key is None else jax.random.wrap_key_data(value, impl=key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, name: object) -> bool:
        return name in self.paths

    def state(self) -> State:
        """Returns everything as a State: `nnx.update(model, nnx.load(file).state()["model"])`.

        What was a pytree in one Variable, such as a list of arrays, is nested in it by keys.

        Example:
          >>> import tempfile
          >>> import weft as nnx
          >>> file = tempfile.mkdtemp() + "/model.safetensors"
          >>> nnx.save(file, model=nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
          >>> nnx.load(file).state()["model"]["kernel"].shape
          (2, 3)
        """
        return from_flat_state({path: self[name] for name, path in self.paths.items()})

    def __repr__(self) -> str:
        facts = self.opened.facts
        inside = ", ".join(f"{name!r}: {facts[path]}" for name, path in self.paths.items())
        return f"SavedFile({{{inside}}})"


@boundary
def restore(
    file: str | os.PathLike[str], /, *, strict: bool = True, cast: bool = False, **objects: Any
) -> Any:
    """Writes the state in a safetensors file into objects, in place: all of it or nothing.

    Arrays are placed as those that they replace, on the same devices with the same sharding; into
    abstract objects (`nnx.eval_shape`) as their sharding says. Python numbers and PRNG keys come
    back as they were.

    Args:
      file: its name. Files of others fit if the names do.
      strict: whether every leaf must have been saved, and everything saved be asked for; False
        takes what is in both, which must be something.
      cast: whether arrays are converted to the dtype of those they replace.
      **objects: by the names they were saved by, objects of the same structure. None for one that
        was saved and is not wanted: `nnx.restore(file, model=model, optimizer=None)`.

    Returns:
      The facts that were given to `nnx.save` as `meta`.

    Raises:
      CheckpointError: if the file is damaged, none of this format, or of a newer version of it.
      StructureError: if it does not fit; lists every path that is missing, unexpected, or of
        another shape, dtype or sharing.
      OSError: if it cannot be read.

    Example:
      >>> import tempfile
      >>> import weft as nnx
      >>> file = tempfile.mkdtemp() + "/model.safetensors"
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.save(file, model=model, meta={"epoch": 7})
      >>> other = nnx.Linear(2, 3, rngs=nnx.Rngs(1))
      >>> nnx.restore(file, model=other)
      {'epoch': 7}
      >>> bool((model.kernel == other.kernel).all())
      True
    """
    opened = open_any(FilePath(file))
    found, wanted, sources = match_objects(
        file,
        opened.facts,
        opened.shared,
        objects,
        strict=strict,
        cast=cast,
        call="nnx.restore(file, ",
        load=" or take it from `nnx.load(file)[{!r}]`",
    )
    olds = found.placed()
    check_places(olds, {path: wanted[path] for path in sources})
    found.write(_read(opened, sources, wanted, olds))
    return opened.meta


def _read(
    opened: Opened,
    sources: Mapping[Path, Path],
    wanted: Mapping[Path, Fact],
    olds: Mapping[Path, Any],
) -> dict[Path, Any]:
    return {
        path: place(opened.read(source, copy=True), opened.facts[source], olds[path], wanted[path])
        for path, source in sources.items()
    }
