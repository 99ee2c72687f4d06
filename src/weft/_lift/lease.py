"""Leases: which arrays may be overwritten by the next call of a compiled function.

An array may be *donated*, its memory reused for the outcome, if the library itself stored it as
the outcome of an earlier call and nobody was handed it since. A *lease* stands for the Variables
of which one function may assume so. A Variable that is read or written otherwise is *exposed*: its
lease hears of it, and its array is copied before the next call. So donation costs nothing per
Variable, and it never destroys what somebody else holds.

While one function is called again and again, nobody needs the arrays between its calls. Then the
lease *holds* them itself, as the list that came out of the last call and goes into the next one,
and no Variable is touched. It *settles*, putting them back into the Variables, as soon as one of
these is used otherwise. At most one lease of a thread holds arrays: plans, which read Variables
without asking their leases, settle that one first.

Threads: a lease is *busy* from reading the arrays to writing the new ones. One that a second thread
touches is *shared*, and nothing of it is donated any more: that thread says so first and then waits
while the lease is busy, a call makes it busy first and then asks whether it is shared. Shared is
also a lease of Variables that are in a plan of another thread, because plans read without touching.
"""

from __future__ import annotations

import itertools
import operator
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from weft._part import Part
from weft._reads import forget
from weft._types import HELD, exhaust
from weft._variable import Variable, get_slot, set_lease, set_slot
from weft._variables import store_raws
from weft._watch import is_watched_elsewhere

_flat = itertools.chain.from_iterable
_new = operator.attrgetter("new")
NOTHING: Iterator[None] = iter(())

holding: dict[int, Lease] = {}
"""The lease that holds arrays, by thread."""


def settle() -> None:
    """Puts arrays that a lease of this thread holds back into their Variables."""
    lease = holding.get(threading.get_ident())
    if lease is not None:
        lease.settle()


class Lease:
    """The Variables of one plan whose arrays may be donated.

    Attributes:
      exposed: Variables that are not the lease's own: to be copied, or taken from another lease.
      shared: whether a second thread touched one.
      busy: whether a call that donates is running.
      arrays: those that the lease holds, None if the Variables have them.
      new: the arrays that came out of a call, where the lease does not hold them.
      store: puts these into the Variables.
    """

    __slots__ = (
        "_calm",
        "_lock",
        "_thread",
        "_variables",
        "arrays",
        "busy",
        "exposed",
        "new",
        "shared",
        "store",
    )

    def __init__(self, variables: Sequence[Variable]):
        self.exposed: list[Variable] = list(variables)
        self.shared = False
        self.busy = False
        self.arrays: list[Any] | None = None
        self.new: Sequence[Any] = ()
        self.store: Iterator[None] = NOTHING
        self._thread = threading.get_ident()
        self._variables: list[Variable] = []  # only while arrays are held, as these refer back
        self._calm = False  # whether the lease did not settle since the last call
        self._lock = threading.RLock()  # of what several threads may change

    def expose(self, variable: Variable) -> None:
        """Notes that a Variable's array is handed out or replaced."""
        self.touch()
        with self._lock:
            self.settle()
            self.exposed.append(variable)
            set_lease(variable, None)
            if self.busy:  # read while its array is being donated: hand out another one
                store_raws((variable,), (copy_array(get_slot(variable)),))

    def touch(self) -> None:
        """Notes that the running thread uses the Variables of the lease."""
        if threading.get_ident() != self._thread:
            self.shared = True
            while self.busy:  # once in the life of a lease: that needs no condition to wait for
                time.sleep(1e-4)
            self.settle()

    def take(self, variables: list[Variable]) -> list[Any]:
        """Returns the arrays for a call, and decides who has the new ones after it.

        Args:
          variables: those of the lease.
        """
        settle()
        arrays = [variable._slot for variable in variables]
        forget()
        if not self._calm:
            self._calm = True
            self.store = self._storing(variables)
            return arrays
        # An interrupt may come after each line: what is not marked yet still has the same array.
        holding[self._thread] = self
        self._variables, self.arrays = variables, arrays
        store_raws(variables, itertools.repeat(HELD))
        return arrays

    def settle(self) -> None:
        """Puts the arrays that the lease holds back into the Variables."""
        with self._lock:
            self._calm = False
            if self.arrays is not None:
                if self.busy:
                    self.store = self._storing(self._variables)
                store_raws(self._variables, self.arrays)
                self.arrays, self._variables = None, []
            if holding.get(self._thread) is self:
                del holding[self._thread]

    def _storing(self, variables: list[Variable]) -> Iterator[None]:
        return map(set_slot, variables, _flat(map(_new, (self,))))

    def reclaim(self) -> bool:
        """Makes the arrays of all exposed Variables the library's own, if possible.

        Returns:
          Whether it was.
        """
        settle()
        with self._lock:
            exposed = self.exposed[:]  # a finalizer may expose more meanwhile
            for variable in exposed:
                other = variable._lease
                if isinstance(other, Part) or not _is_concrete(get_slot(variable)):
                    return False
                if other is not None and other._thread != self._thread:
                    self.shared = True
                    return False
            copied = []
            for variable in exposed:
                other = variable._lease
                if other is None or other is self:
                    copied.append(variable)
                else:  # the outcome of another function, still unseen by anybody
                    other.exposed.append(variable)
            # Leases come first: from then on a reader in another thread waits, and one that makes a
            # plan is either seen here or sees the lease. What an interrupt leaves undone stays
            # exposed, and is then copied in any case.
            exhaust(map(set_lease, exposed, itertools.repeat(self)))
            if any(is_watched_elsewhere(v._watches, self._thread) for v in exposed):
                self.shared = True
                return False
            arrays = [copy_array(get_slot(variable)) for variable in copied]
            forget()
            # Here an interrupt would not come in between.
            forgets = map(list.__delitem__, (self.exposed,), (slice(len(exposed)),))
            exhaust(itertools.chain(map(set_slot, copied, arrays), forgets))
            forget()
        return True


def _is_concrete(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return True
    return isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer)


def copy_array(array: Any) -> jax.Array:
    """Copies an array into memory of its own, on the same devices."""
    if isinstance(array, np.ndarray):
        return jnp.array(array)
    # What is not committed to its devices stays so: JAX moves it where a computation needs it.
    sharding = array.sharding if array.committed else None
    return jax.device_put(array, sharding, may_alias=False)
