"""Watching objects for changes of their structure.

A *watch* belongs to something that was worked out from the structure of some objects, and is no
longer valid once one of them changes. Objects keep the watches set on them and void them all when
an attribute, an item or metadata changes; new values of Variables and arrays are no change.
"""

from __future__ import annotations

from collections.abc import Callable

_MANY = 32


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
        self.valid = False
        if self._on_void is not None:
            self._on_void()


def void(watches: list[Watch]) -> None:
    """Voids watches, and forgets them."""
    for watch in watches:
        watch.void()
    watches.clear()


def add(watches: list[Watch], watch: Watch) -> None:
    """Sets a watch, once; forgets void ones when there are many."""
    if watches and watches[-1] is watch:
        return
    if len(watches) >= _MANY:
        watches[:] = [old for old in watches if old.valid]
    watches.append(watch)


def is_watched_elsewhere(watches: list[Watch] | None, thread: int) -> bool:
    """Returns whether a thread other than this one may read arrays unseen."""
    return any(watch.valid and watch.thread not in (thread, None) for watch in watches or ())
