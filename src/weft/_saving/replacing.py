"""Files that are replaced as a whole: until the new one is complete and on disk, the former stays.

A file is written in a temporary folder beside it, whose name says which process of which host
writes, and moved to its place. Folders that processes have left which were killed are removed.
Folders that come to their place as a whole use the same temporary ones.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_numbers = itertools.count()
_in_use: set[str] = set()
_lock = threading.Lock()
_FOREIGN_AGE = 24 * 3600.0  # what other hosts write, whose processes nobody here can see


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yields the name of a file to write, which then takes the place of the given one.

    Raises:
      OSError: naming the file, if it cannot be written; the former file is untouched.
    """
    try:
        file = Path(os.path.realpath(file))  # a link stays one
        mode = _mode_of(file)
        remove_leftovers(file.parent, re.escape(file.name))
        folder = make_folder(file)
        try:
            part = folder / "data"
            yield part
            os.chmod(part, folder.stat().st_mode & 0o666 if mode is None else mode)
            sync_file(part)
            os.replace(part, file)
        finally:
            remove_folder(folder)
        sync_folder(file.parent)
    except OSError as error:
        error.filename = str(file)
        del error.filename2  # or the message has an arrow to it
        raise


def _mode_of(file: Path) -> int | None:
    """Returns the permissions that a file has and keeps; None if there is none.

    Raises:
      OSError: if it is none, or not to be written to: a folder that can be written to would let it
        be replaced all the same.
    """
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not file.exists():
        return None
    if not os.access(file, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_IMODE(file.stat().st_mode)


def remove_leftovers(folder: Path, names: str) -> None:
    """Removes what processes that were killed have left in a folder.

    Args:
      folder: where.
      names: a regular expression of the names of what they were writing.
    """
    name = re.compile(rf"\.(?:{names})\.([^.]+)\.(\d+)\.\d+\.part")
    with os.scandir(folder) as entries:
        matches = [(entry, match) for entry in entries if (match := name.fullmatch(entry.name))]
    for entry, match in matches:
        if _is_abandoned(entry, match[1], int(match[2])):
            shutil.rmtree(entry.path, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname()) or "host"


def make_folder(file: Path) -> Path:
    """Returns a new temporary folder beside a file or folder, which `remove_folder` removes."""
    with _lock:
        name = f".{file.name}.{_host()}.{os.getpid()}.{next(_numbers)}.part"
        _in_use.add(name)
    folder = file.with_name(name)
    try:
        folder.mkdir()
    except BaseException:
        with _lock:
            _in_use.discard(name)
        raise
    return folder


def _is_abandoned(entry: os.DirEntry[str], host: str, process: int) -> bool:
    if host != _host() or os.name != "posix":  # Windows has no harmless way to ask for a process
        with contextlib.suppress(FileNotFoundError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FOREIGN_AGE
        return False
    if process == os.getpid():
        with _lock:
            return entry.name not in _in_use
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def remove_folder(folder: Path) -> None:
    """Removes a temporary folder, as far as that can be done, and if it is still there."""
    shutil.rmtree(folder, ignore_errors=True)
    with _lock:
        _in_use.discard(folder.name)


def sync_file(file: Path) -> None:
    """Makes sure that what was written to a file is on disk."""
    _sync(file, os.O_RDWR)


def sync_folder(folder: Path) -> None:
    """Makes sure that what was made in a folder, or moved there, is on disk."""
    if os.name == "posix":  # Windows has no such call on folders
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
