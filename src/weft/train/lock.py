"""The lock of a run's folder, so that two runs never write into one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import warnings
import weakref
from pathlib import Path
from typing import IO

from weft._core.errors import WeftError


class FolderInUseError(WeftError, RuntimeError):
    """Another run holds the folder.

    Example:
      >>> import tempfile
      >>> from weft import train
      >>> folder = tempfile.mkdtemp()
      >>> first = train.Run(folder, state={}, data=[], steps=1)
      >>> train.Run(folder, state={}, data=[], steps=1)
      Traceback (most recent call last):
        ...
      weft.train.lock.FolderInUseError: ... is in use by process ... on ...: end that run...
      >>> first.close()
    """


class Lock:
    """A file that the system locks for this process, and that says which process that is.

    The system forgets the lock when the process ends, however it ends, so that one that was killed
    keeps nobody out; nor do processes that it has forked, such as workers that load data, which may
    outlive it. Who takes over after a process of another machine is told so, as not every
    shared file system locks across machines.

    Args:
      file: the lock's file; it stays, empty, when the lock is released.
    """

    def __init__(self, file: Path):
        self.file = file
        self._held: IO[str] | None = None

    def take(self) -> None:
        """Takes the lock, if it is not this object's already.

        Raises:
          FolderInUseError: if another run has it.
        """
        if self._held is not None:
            return
        held = self.file.open("a+", encoding="utf-8", errors="replace")
        is_free = _lock(held)
        held.seek(0)
        before = _holder(held.read())
        if not is_free:
            held.close()
            raise FolderInUseError(
                f"{self.file.parent} is in use by process {before.get('pid', 'unknown')} on "
                f"{before.get('host', 'an unknown machine')}: end that run, or give this one "
                "another folder"
            )
        if before and before.get("host") != socket.gethostname():
            warnings.warn(
                f"{self.file.parent} was left by process {before.get('pid', 'unknown')} on "
                f"{before.get('host', 'an unknown machine')}, "
                "which is taken to be over: this run goes on in its place",
                stacklevel=3,
            )
        held.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, held)
        held.flush()
        self._held = held
        _locks.add(self)

    def release(self) -> None:
        """Lets others have the lock."""
        if self._held is not None:
            with contextlib.suppress(OSError):  # a disk that is full or gone
                self._held.truncate(0)
            self._held.close()
            self._held = None


def _holder(text: str) -> dict[str, object]:
    with contextlib.suppress(ValueError):  # empty, or written when the machine went down
        holder = json.loads(text)
        return holder if isinstance(holder, dict) else {}
    return {}


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_in_child() -> None:
    """Closes the files in a process that was forked: the lock is there as long as one is open."""
    for lock in _locks:
        held, lock._held = lock._held, None
        if held is not None:
            held.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_in_child)


def _lock(file: IO[str]) -> bool:
    """Asks the system for a lock; returns whether it is free."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where nobody is kept out
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
