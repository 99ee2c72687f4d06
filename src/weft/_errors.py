"""The faults that Weft reports: one exception class each.

Every class refines `WeftError` and the builtin exception that fits, so that code which catches
`ValueError` keeps working.
"""

from __future__ import annotations


class WeftError(Exception):
    """Base class of the errors that Weft defines."""


class TraceContextError(WeftError, RuntimeError):
    """A Variable or object was written from a trace that it does not belong to."""


class AliasError(WeftError, ValueError):
    """One Variable was reached under two different prefixes (axes, shardings, ...)."""


class SharedReferenceError(WeftError, ValueError):
    """An object was reached twice where `graph=False` asks for a tree."""


class CycleError(WeftError, ValueError):
    """An object contains itself where only a tree can be represented."""


class StructureError(WeftError, ValueError):
    """A state or an object does not have the structure that was asked for."""


class PrefixError(WeftError, ValueError):
    """Axes, shardings or carries do not fit the arguments that they stand beside."""


class FilterError(WeftError, TypeError):
    """Something that is no filter was given as one, or filters do not cover all Variables."""


class RetraceError(WeftError, RuntimeError):
    """A function was traced more often than it was allowed to be."""
