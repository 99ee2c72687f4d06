"""The storage of a checkpoint's arrays: the one place that knows Orbax."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


def _orbax() -> Any:
    try:
        from orbax.checkpoint import v1
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("orbax"):
            raise
        raise ModuleNotFoundError(
            "train.Checkpoints needs Orbax, which writes them: `pip install 'weft[checkpoint]'`",
            name=error.name,
        ) from error
    return v1


def check_installed() -> None:
    """Raises ModuleNotFoundError, which says what to install, if Orbax is missing."""
    _orbax()


_PATTERN = set("*?[\\") - {os.sep}


def check_folder(folder: Path) -> None:
    """Raises ValueError for a folder in which Orbax would save what it cannot find again.

    It looks for what its processes have written by patterns that begin with the folder's name, and
    if there is nothing it says so in its log, and ends well.
    """
    found = sorted(_PATTERN.intersection(str(folder)))
    if found:
        raise ValueError(
            f"{folder} cannot have checkpoints: Orbax, which writes them, takes {' '.join(found)} "
            "for a pattern; give a folder without, such as `str(folder).replace('[', '(')`"
        )


def _context() -> Any:
    context = _orbax().Context()
    context.array_options.saving.use_compression = False  # weights do not get smaller by it
    context.array_options.saving.use_replica_parallel = False  # chunks are the shards
    context.array_options.saving.enable_pinned_host_transfer = False
    context.async_options.create_directories_asynchronously = False
    context.memory_options.deepcopy_host_arrays = False  # they are copies
    context.pytree_options.loading.partial_load = True
    return context


def begin_saving(folder: Path, arrays: Mapping[str, np.ndarray | jax.Array]) -> Callable[[], None]:
    """Begins to write arrays into a folder that is not there yet.

    Every process calls this, with the same names.

    Args:
      folder: where.
      arrays: by name; those of NumPy are written by the first process. None is empty.

    Returns:
      What waits for the end of it.
    """
    with _context():
        return _orbax().save_async(folder, dict(arrays)).result


def load(folder: Path, wanted: Mapping[str, np.ndarray | jax.ShapeDtypeStruct]) -> dict[str, Any]:
    """Reads arrays.

    Args:
      folder: where they are.
      wanted: by name, what says dtype and sharding; what is of NumPy is read as such.
    """
    with _context():
        return _orbax().load(folder, dict(wanted))


def wait_for_all(key: str) -> None:
    """Returns when every process has called this with a key, which is used once; in any thread."""
    sync = _orbax().multihost.sync_global_processes
    asyncio.run(sync(key, operation_id="weft"))


def error_number(error: BaseException) -> int | None:
    """Returns the number that the system gave to what went wrong, if it did so."""
    while not isinstance(error, OSError) or error.errno is None:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number:
            return int(number[1])
        if error.__cause__ is None:
            return None
        error = error.__cause__
    return error.errno
