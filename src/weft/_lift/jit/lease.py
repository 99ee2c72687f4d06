"""Leases: which arrays may be overwritten by the next call of a compiled function.

An array may be *donated*, its memory reused for the outcome, if the library itself stored it as
the outcome of an earlier call and nobody was handed it since. A *lease* stands for the Variables
of which one function may assume so, and knows their arrays. A Variable that is read or written
otherwise is *exposed*: its lease hears of it, and its array is copied before the next call. So
donation costs nothing per Variable, and it never destroys what somebody else holds.

While one function is called again and again, nobody needs the arrays between its calls. Then the
lease *holds* them alone, as the list that came out of the last call and goes into the next one,
and no Variable is touched. It *settles*, putting them back into the Variables, as soon as one of
these is used otherwise. At most one lease of a thread holds arrays: plans, which read Variables
without asking their leases, settle that one first.

Threads: a lease is *busy* from taking the arrays to storing the new ones. One that a second thread
touches is *shared*, and nothing of it is donated any more: that thread says so first and then waits
while the lease is busy, a call makes it busy first and then asks whether it is shared. Shared is
also a lease of Variables that were ever in a plan of another thread, because plans read without
touching, and one that takes a Variable over from a shared lease. A thread that asks a lease may
find that another one took the Variable over: then it asks that one.
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

from weft._core.types import HELD, exhaust
from weft._variable.bulk import store_raws
from weft._variable.keeper import Keeper
from weft._variable.reads import forget
from weft._variable.storage import get_slot, set_keeper, set_slot
from weft._variable.variable import Variable
from weft._variable.watch import is_watched_elsewhere

_flat = itertools.chain.from_iterable
_arrays = operator.attrgetter("arrays")
NO_STORES: Iterator[None] = iter(())

holding: dict[int, Lease] = {}
"""The lease that holds arrays, by thread."""

_changing = threading.RLock()
"""Taken while Variables get another lease or arrays go back to them; JAX is not called then."""


def settle() -> None:
    """Puts arrays that a lease of this thread holds back into their Variables."""
    lease = holding.get(threading.get_ident())
    if lease is not None:
        lease.settle()


class Lease(Keeper):
    """The Variables of one plan whose arrays may be donated.

    Args:
      variables: these Variables.
      given: those among them, by `id`, whose arrays the user gives away even if others hold them.

    Attributes:
      exposed: Variables that are not the lease's own: to be copied, or taken from another lease.
      shared: whether a second thread touched one.
      busy: whether a call that donates is running.
      is_holding: whether the Variables lack the arrays.
      arrays: those that may be donated; None where `exposed` is to be looked after first.
      store: puts them into the Variables, after a call.
    """

    __slots__ = (
        "_calm",
        "_given",
        "_is_over",
        "_thread",
        "_variables",
        "arrays",
        "busy",
        "exposed",
        "is_holding",
        "shared",
        "store",
    )

    stays = False

    def __init__(self, variables: Sequence[Variable], given: frozenset[int] = frozenset()):
        self.exposed: list[Variable] = list(variables)
        self.shared = False
        self.busy = False
        self.is_holding = False
        self.arrays: list[Any] | None = None
        self.store: Iterator[None] = NO_STORES
        self._given = given
        self._thread = threading.get_ident()
        self._variables: list[Variable] = []  # only while arrays are held, as these refer back
        self._calm = False  # whether the lease did not settle since the last call
        self._is_over = False

    def expose(self, variable: Variable) -> None:
        """Notes that a Variable's array is handed out or replaced.

        Another lease may take the Variable over meanwhile: whoever calls this looks again.
        """
        self.touch()
        with _changing:
            if variable._keeper is not self:
                return
            self.settle()
            self.arrays = None
            if not self._is_over:
                self.exposed.append(variable)
            set_keeper(variable, None)
        if self.busy and threading.get_ident() == self._thread:
            # Read while its array is being donated: hand out another one.
            store_raws((variable,), (copy_array(get_slot(variable)),))

    def touch(self) -> None:
        """Notes that the running thread uses the Variables of the lease."""
        if threading.get_ident() != self._thread:
            self.shared = True
            while self.busy:  # once in the life of a lease: that needs no condition to wait for
                time.sleep(1e-4)
            self.settle()

    def lend(self, variables: list[Variable]) -> list[Any] | None:
        """Returns the arrays for a call, and decides who has the new ones after it.

        Args:
          variables: those of the lease.

        Returns:
          None if one was exposed meanwhile.
        """
        settle()
        arrays = self.arrays
        if arrays is None:
            return None
        forget()
        if not self._calm:
            self._calm = True
            self.store = self._storing(variables)
            return arrays
        # An interrupt may come after each line: what is not marked yet still has the same array.
        holding[self._thread] = self
        self._variables, self.is_holding = variables, True
        store_raws(variables, itertools.repeat(HELD))
        return arrays

    def settle(self) -> None:
        """Puts the arrays that the lease holds back into the Variables."""
        with _changing:
            self._calm = False
            if self.is_holding and self.arrays is not None:
                if self.busy:
                    self.store = self._storing(self._variables)
                store_raws(self._variables, self.arrays)
                self.is_holding, self._variables = False, []
            if holding.get(self._thread) is self:
                del holding[self._thread]

    def end(self) -> None:
        """Notes that there will be no call any more; other leases may take the Variables over."""
        with _changing:
            self.settle()
            self._is_over, self.arrays, self.exposed = True, None, []

    def _storing(self, variables: list[Variable]) -> Iterator[None]:
        return map(set_slot, variables, _flat(map(_arrays, (self,))))

    def reclaim(self, variables: list[Variable]) -> bool:
        """Makes the arrays of all exposed Variables the library's own, if possible.

        Args:
          variables: those of the lease.

        Returns:
          Whether it was.
        """
        settle()
        with _changing:
            exposed = self.exposed[:]  # a finalizer may expose more meanwhile
            leases = [variable._keeper for variable in exposed]
            for variable, other in zip(exposed, leases, strict=True):
                if (other is not None and other.is_part) or not _is_concrete(get_slot(variable)):
                    return False
                if other is not None and (other.shared or other._thread != self._thread):
                    self.shared = True
                    return False
            copied = []
            for variable, other in zip(exposed, leases, strict=True):
                if other is not None and other is not self:
                    # The outcome of another function, still unseen by anybody.
                    if not other._is_over:
                        other.exposed.append(variable)
                        other.arrays = None
                elif id(variable) not in self._given:
                    copied.append(variable)
            # Leases come first: from then on a reader in another thread waits, and one that makes a
            # plan is either seen here or sees the lease. What an interrupt leaves undone stays
            # exposed, and is then copied in any case.
            exhaust(map(set_keeper, exposed, itertools.repeat(self)))
        if any(is_watched_elsewhere(v._watches, self._thread) for v in exposed):
            self.shared = True
            return False
        arrays = [copy_array(get_slot(variable)) for variable in copied]
        forget()
        with _changing:
            if self.shared:  # then another thread may have written some
                return False
            # Here an interrupt would not come in between.
            forgets = map(list.__delitem__, (self.exposed,), (slice(len(exposed)),))
            exhaust(itertools.chain(map(set_slot, copied, arrays), forgets))
            self.arrays = list(map(get_slot, variables))
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
