"""Leases: which arrays may be overwritten by the next call of a compiled function.

An array may be *donated*, its memory reused for the outcome, if the library itself stored it as
the outcome of an earlier call and nobody was handed it since. A *lease* stands for the Variables
of which one function may assume so. A Variable that is read or written otherwise is *exposed*: its
lease hears of it, and its array is copied before the next call. So donation costs nothing per
Variable, and it never destroys what somebody else holds.

Threads: a call holds the lease's lock from reading the arrays to writing the new ones. A lease that
a second thread touches is *shared*, and nothing of it is donated any more.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from weft._variable import Variable, get_slot, set_lease, set_slot


class Lease:
    """The Variables of one plan whose arrays may be donated.

    Attributes:
      lock: held while arrays are donated.
      exposed: Variables that were read or written otherwise since.
      shared: whether a second thread touched one.
    """

    __slots__ = ("_busy", "_owner", "exposed", "lock", "shared")

    def __init__(self, variables: Sequence[Variable]):
        self.lock = threading.RLock()
        self.exposed: list[Variable] = list(variables)
        self.shared = False
        self._owner = threading.get_ident()
        self._busy = False

    def expose(self, variable: Variable) -> None:
        """Notes that a Variable's array is handed out or replaced."""
        self.touch()
        with self.lock:
            set_lease(variable, None)
            self.exposed.append(variable)
            if self._busy:  # read while its array is being donated: hand out another one
                set_slot(variable, copy_array(get_slot(variable)))

    def touch(self) -> None:
        """Notes that the running thread uses the Variables of the lease."""
        if threading.get_ident() != self._owner:
            with self.lock:
                self.shared = True

    def reclaim(self) -> bool:
        """Makes all arrays of the lease the library's own; returns whether that was possible."""
        exposed, self.exposed = self.exposed, []
        for i, variable in enumerate(exposed):
            if variable._lease is self:
                continue
            if not _is_concrete(get_slot(variable)):
                self.exposed = exposed[i:]
                return False
            other = variable._lease
            # The lease comes first: from then on a reader in another thread waits.
            set_lease(variable, self)
            if other is not None:  # another function's outcome, still unseen by anybody
                other.exposed.append(variable)
            else:
                set_slot(variable, copy_array(get_slot(variable)))
        return True

    def begin(self) -> None:
        """Marks a donating call as running."""
        self._busy = True

    def end(self) -> None:
        """Marks it as ended."""
        self._busy = False


def _is_concrete(array: Any) -> bool:
    return isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer)


def copy_array(array: Any) -> Any:
    """Copies an array into memory of its own, on the same devices."""
    if not _is_concrete(array):
        return array
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):
        return jnp.copy(array)
    return jax.device_put(array, array.sharding, may_alias=False)
