"""Names of JAX that are at risk: marked for deletion, or outside of what it keeps stable.

Whoever uses one imports it from here, so that a JAX without it is dealt with in one place.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import jax.core

FOUND_LATER = {
    "ClosedJaxpr": "jax.extend.core",
    "Jaxpr": "jax.extend.core",
    "jaxpr_as_fun": "jax.extend.core",
    "register_exclusion": "jax.extend.source_info_util",
    **dict.fromkeys(
        ("process_allgather", "reached_preemption_sync_point"),
        "jax.experimental.multihost_utils",
    ),
}
"""Names that are imported when they are asked for: `jax.extend` loads Pallas and more, which takes
longer than half of Weft."""


def __getattr__(name: str) -> Any:
    if name not in FOUND_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(FOUND_LATER[name]), name)


def _of_core(name: str) -> Any:
    """Returns a function of `jax.extend.core` by its former name, as long as JAX has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = getattr(jax.core, name, None)
    return found or getattr(importlib.import_module("jax.extend.core"), name, None)


state_of_trace: Callable[[], Any] = _of_core("get_opaque_trace_state")
if state_of_trace is None:
    raise ImportError(
        "expected `jax.extend.core.get_opaque_trace_state`, by which Weft tells one trace from "
        f"another, found none in JAX {jax.__version__}: `pip install -U weft`, or an older JAX"
    )

with jax.core.eval_context():
    OUTSIDE = state_of_trace()
    """What `state_of_trace()` equals where no JAX transformation is running."""


def _find_state(_: Any) -> Any:
    state = state_of_trace()
    return OUTSIDE if state == OUTSIDE else state


# Marked for deletion, but asked several times in every call: 0.1 µs, where what JAX keeps, the
# comparison of states, takes 0.3.
find_top_trace: Callable[[Any], Any] = _of_core("find_top_trace") or _find_state
"""Returns the running trace; that it is `OUTERMOST` says that no transformation is running."""

with jax.core.eval_context():
    OUTERMOST = find_top_trace(())
