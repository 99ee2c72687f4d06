"""Watching objects for changes of their structure.

A *watch* belongs to something that was worked out from the structure of some objects, and is no
longer valid once one of them changes. Objects keep the watches set on them and void them all when
an attribute, an item or metadata changes; new values of Variables and arrays are no change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

_MANY = 32
SEVERAL = -1
"""Stands for more than one thread."""


class Watch:
    """Valid until something that it was set on changes.

    Attributes:
      valid: whether nothing changed so far, and somebody still cares.
      thread: the thread that reads arrays unseen while the watch is valid, if any does.
    """

    __slots__ = ("_on_void", "thread", "valid")

    def __init__(self, on_void: Callable[[], None] | None = None, *, thread: int | None = None):
        self.valid = True
        self.thread = thread
        self._on_void = on_void

    def void(self) -> None:
        """Notes that something changed."""
        if self.valid:
            self.valid = False
            if self._on_void is not None:
                self._on_void()


class Watches(list[Watch]):
    """The watches set on a Variable.

    Attributes:
      thread: the thread whose watches read arrays unseen; `SEVERAL` once two did, for ever: what
        such a watch saw may still be in use when it is void.
    """

    __slots__ = ("thread",)

    def __init__(self) -> None:
        super().__init__()
        self.thread: int | None = None

    def note_thread(self, thread: int | None) -> None:
        """Notes that a thread reads arrays unseen."""
        if thread is not None and thread != self.thread:
            self.thread = thread if self.thread is None else SEVERAL


# Several threads may watch and change one object: what one adds, another one never takes out.
def void(watches: list[Watch]) -> None:
    """Voids watches, and forgets them."""
    while watches:
        with contextlib.suppress(IndexError):  # another thread voided the last one
            watches.pop().void()


def add(watches: list[Watch], watch: Watch) -> None:
    """Sets a watch, once; forgets void ones when there are many."""
    if watches and watches[-1] is watch:
        return
    if len(watches) >= _MANY:
        for old in [old for old in watches if not old.valid]:
            with contextlib.suppress(ValueError):
                watches.remove(old)
    watches.append(watch)


def is_watched_elsewhere(watches: Watches | None, thread: int) -> bool:
    """Returns whether a thread other than this one reads arrays unseen, or did."""
    return watches is not None and watches.thread not in (thread, None)
