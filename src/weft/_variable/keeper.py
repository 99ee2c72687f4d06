"""Keepers: who is told before the array of a Variable is read or replaced.

A Variable has a *keeper* while its array is not simply its own: a lease donates it, a part is a
piece of another Variable's, a loan of JAX's watches for writes that get lost. The functions here
get values into and out of the slot of a Variable, past hooks and guards, but never past its keeper.
"""

from __future__ import annotations

from typing import Any, ClassVar

from weft._core.static import Static
from weft._core.types import HELD, MISSING
from weft._variable import watch as watching
from weft._variable.reads import forget, readers
from weft._variable.storage import (
    VariableStorage,
    set_metadata_slot,
    set_slot,
    set_watches,
)
from weft._variable.values import is_leaf


class Keeper:
    """Looks after the arrays of some Variables.

    Attributes:
      stays: whether it keeps a Variable that was read or written; others let go of it.
      is_part: whether the value is a part of another Variable's.
      shared: whether a call of a compiled function may not take the arrays over from it.
    """

    __slots__ = ()

    stays: ClassVar[bool] = True
    is_part: ClassVar[bool] = False
    shared: Any = True

    def expose(self, variable: Any) -> None:
        """Is called before the value of a Variable is read or replaced."""

    def touch(self) -> None:
        """Is called when a thread is about to use a Variable."""

    def write(self, raw: Any) -> None:
        """Is called with what a Variable is given as its value."""

    def check(self, variable: Any, raw: Any, metadata: Static | None) -> None:
        """Raises unless a Variable may be given a value and metadata.

        Args:
          variable: the Variable.
          raw: the value, `MISSING` to keep the present one.
          metadata: the metadata, None to keep it.
        """


def is_part(value: Any) -> bool:
    """Returns whether a value is a Variable that is a part of another."""
    # The class is asked first: a traced array would look a name up with much ado.
    return hasattr(type(value), "_keeper") and value._keeper is not None and value._keeper.is_part


def check_kept(variable: VariableStorage, raw: Any, metadata: Static | None) -> None:
    """Raises if the keeper of a Variable cannot take a value and metadata; see `Keeper.check`."""
    keeper = variable._keeper
    if keeper is not None:
        keeper.check(variable, raw, metadata)


def read_kept(variable: VariableStorage) -> Any:
    """Reads a raw value that a keeper may have to bring up to date."""
    while True:
        keeper = variable._keeper
        if keeper is not None:
            keeper.expose(variable)
        value = variable._slot
        if variable._keeper is None or (keeper is not None and keeper.stays):
            if variable._slot is value is not HELD:
                return value


def set_raw(variable: VariableStorage, raw: Any) -> None:
    """Stores a raw value."""
    keeper = variable._keeper
    if keeper is not None and keeper.stays:
        keeper.write(raw)
    else:
        while keeper is not None:  # another one may take the Variable over meanwhile
            keeper.expose(variable)
            keeper = variable._keeper
    if variable._watches and not (is_leaf(raw) and is_leaf(variable._slot)):
        watching.void(variable._watches)
    if readers:
        forget()
    set_slot(variable, raw)
    if readers:
        forget()


def set_metadata_dict(variable: VariableStorage, metadata: dict[str, Any]) -> None:
    """Replaces all metadata."""
    keeper = variable._keeper
    if keeper is not None and keeper.stays:
        keeper.check(variable, MISSING, Static(metadata))
    set_metadata_slot(variable, metadata)
    if variable._watches:
        watching.void(variable._watches)


def watch_variable(variable: VariableStorage, watch: watching.Watch) -> None:
    """Sets a watch on metadata and on whether the value is a single leaf."""
    watches = variable._watches
    if watches is None:
        set_watches(variable, watches := watching.Watches())
    watching.add(watches, watch)
    watches.note_thread(watch.thread)
