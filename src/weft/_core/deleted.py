"""Arrays that are gone: which arguments of a call hold arrays that were donated or deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.core import Tracer

from weft._core.arguments import leaf_paths
from weft._core.path import format_path

_MOST = 5


def explain_deleted(
    error: Exception, f: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Adds to JAX's error about an array that was deleted which arguments hold such arrays."""
    leaves = leaf_paths(f, args, kwargs)
    gone = list(dict.fromkeys(format_path(path) for path, leaf in leaves if _is_gone(leaf)))
    if gone and "were donated" not in str(error):
        names = ", ".join(gone[:_MOST]) + (", ..." if len(gone) > _MOST else "")
        error.args = (
            f"{error}\nGone are the arrays of {names}: they were donated to an earlier call, or "
            "deleted. Go on with what that call returned, `x = f(x)`, give it a copy, "
            "`f(jnp.copy(x))`, or leave out its `donate_argnums`",
        )


def _is_gone(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted()
