"""Arrays that were read together, kept until a Variable is written.

A *reader* keeps the arrays of its Variables as a list, so that a function that is called again and
again does not read them each time. Whoever writes any Variable makes all readers forget: they are
few, and between the calls of such a function nothing is written as a rule. Readers are referred to
weakly, and once they forgot they keep no array alive.
"""

from __future__ import annotations

import weakref
from typing import Any

_MANY = 64

readers: dict[weakref.ref[Any], None] = {}
"""Those that keep arrays; they have an attribute `arrays`."""


def register(reader: Any) -> weakref.ref[Any]:
    """Notes a reader before it reads. If its reference is gone afterwards, it has to forget."""
    if len(readers) >= _MANY:
        for other in list(readers):
            if other() is None:
                readers.pop(other, None)
    reference = weakref.ref(reader)
    readers[reference] = None
    return reference


def forget() -> None:
    """Makes all readers read again.

    To be called before a Variable is written, lest an interrupt come in between, and after it, as
    another thread may have read in between.
    """
    for reference in list(readers):
        reader = reference()
        if reader is not None:
            reader.arrays = None
        readers.pop(reference, None)
