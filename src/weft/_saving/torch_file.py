"""Files of PyTorch: pickles, which only its own reader of plain weights may open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from weft._core.errors import CheckpointError
from weft._core.path import Path
from weft._saving import names
from weft._saving.facts import Fact, fact_of

SUFFIXES = {".pt", ".pth", ".bin", ".ckpt"}
OLDEST = (2, 10)  # before, files were found that ran code in spite of `weights_only`


class TorchFile:
    """The tensors of a file of PyTorch, as `TensorFile` has those of its own.

    Args:
      file: its name.

    Attributes:
      file: its name.
      facts: what is known of each leaf.
      shared: further paths; there are none.
      names: by name the path of each leaf.
      meta: nothing.

    Raises:
      CheckpointError: if there is no PyTorch that reads it safely, or if it holds more than
        tensors in lists and dicts.
      OSError: if it cannot be read.
    """

    def __init__(self, file: FilePath):
        self.file = file
        self.facts: dict[Path, Fact] = {}
        self.shared: dict[Path, Path] = {}
        self.meta: dict[str, str] = {}
        file.stat()
        self._arrays: dict[Path, np.ndarray] = {}
        for path, array in _arrays_in(_load(file), ()):
            self.facts[path], self._arrays[path] = fact_of(path, array), array
        self.names = {names.name_of(path): path for path in self.facts}

    def read(self, path: Path, *, copy: bool) -> Any:
        """Returns an array; see `TensorFile.read`."""
        return self._arrays[path].copy() if copy else self._arrays[path]


def _load(file: FilePath) -> Any:
    advice = (
        "convert it where it comes from, `safetensors.torch.save_file(model.state_dict(), "
        "'model.safetensors')`"
    )
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        version = None
    else:
        version = str(torch.__version__)
        if tuple(map(int, re.findall(r"\d+", version)[:2])) >= OLDEST:
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:
                raise CheckpointError(
                    f"{file} holds more than plain weights, and is not read: {error}. If you trust "
                    f"it, {advice}"
                ) from error
    found = "none is installed" if version is None else f"found {version}"
    raise CheckpointError(
        f"{file} is a pickle, which may run any code: only PyTorch {'.'.join(map(str, OLDEST))} or "
        f"newer reads weights alone from it, {found}; or {advice}"
    )


def _arrays_in(value: Any, path: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields the tensors in dicts and lists; names of a state dict are split at their dots."""
    if isinstance(value, dict):
        for key, child in value.items():
            keys = key.split(".") if isinstance(key, str) else (key,)
            keys = tuple(int(k) if isinstance(k, str) and k.isdigit() else k for k in keys)
            yield from _arrays_in(child, (*path, *keys))
    elif isinstance(value, (list, tuple)):
        for i, child in enumerate(value):
            yield from _arrays_in(child, (*path, i))
    elif hasattr(value, "detach"):
        yield path, array_of(value.detach())


def array_of(tensor: Any) -> np.ndarray:
    """Returns a tensor of PyTorch, without a gradient, as an array with the same memory."""
    name = str(tensor.dtype).removeprefix("torch.")
    try:
        return tensor.numpy()
    except TypeError:  # NumPy itself has no such dtype
        import ml_dtypes
        import torch  # pyright: ignore[reportMissingImports]

        bits = {1: torch.uint8, 2: torch.int16}[tensor.element_size()]
        raw = tensor.contiguous().view(bits).numpy()
        return raw.view(np.dtype(getattr(ml_dtypes, name)))
