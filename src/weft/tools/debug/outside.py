"""What no call of a module made: Variables and results that are not finite afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.core import Tracer

from weft._core.path import Path, format_path
from weft._core.text import dtype_text
from weft._graph import state, to_flat_state
from weft._module import Pytree
from weft._saving.leaves import leaves_in
from weft._variable.types import Param
from weft._variable.variable import Variable
from weft.tools.debug.checks import count, is_float
from weft.tools.debug.findings import NonFiniteError, amount

_WRITTEN = (
    "{where} has {bad} at the end, and no call of a module made it: it was written outside of "
    "them, as by an optimizer. Look at its learning rate, and at gradients that are large: "
    "`optax.chain(optax.clip_by_global_norm(1.0), tx)`"
)
_RETURNED = (
    "{where} has {bad}, and no call of a module made it. Look at the loss, and what else is done "
    "with what modules return: `jnp.log(jnp.maximum(x, 1e-6))`"
)


class Outside:
    """Finds what is not finite after calls, and was before.

    Args:
      objects: what is looked at, by name or path.
      infinities: whether infinities count; those of Variables that are no Params never do.
    """

    def __init__(self, objects: Mapping[Any, Any], infinities: bool):
        self._objects, self._infinities = objects, infinities
        self._before = set(self._bad())

    def error(self, outputs: Any) -> NonFiniteError | None:
        """Returns what is to be raised, None if all is well.

        Args:
          outputs: what the function returned that was called; of these NaN count alone.
        """
        for where, bad in self._bad().items():
            if where not in self._before:
                return NonFiniteError(_WRITTEN.format(where=where, bad=bad), where, "outside")
        for path, x in leaves_in([(("output",), outputs)]):
            nans, _ = _counts(x)
            if nans:
                where = f"{format_path(path)} {dtype_text(x.dtype)}[{','.join(map(str, x.shape))}]"
                text = _RETURNED.format(where=where, bad=amount(nans, 0))
                return NonFiniteError(text, format_path(path), "outside")
        return None

    def _bad(self) -> dict[str, str]:
        """Returns by path how much of each Variable is not finite, of those that are not."""
        found = {}
        for name, obj in self._objects.items():
            if not isinstance(obj, (Pytree, Mapping, list, tuple)):
                continue
            root: Path = name if isinstance(name, tuple) else (name,)
            for path, leaf in to_flat_state(state(obj)):
                if not isinstance(leaf, Variable):
                    continue
                for inner, x in leaves_in([((*root, *path), leaf)]):
                    nans, infinite = _counts(x)
                    if not (self._infinities and isinstance(leaf, Param)):
                        infinite = 0
                    if nans or infinite:
                        found[format_path(inner[1:], str(inner[0]))] = amount(nans, infinite)
        return found


def _counts(x: Any) -> tuple[int, int]:
    """Counts in a floating-point array that has a value; of anything else there is nothing."""
    if not is_float(x) or isinstance(x, (Tracer, jax.ShapeDtypeStruct)):
        return 0, 0
    if isinstance(x, jax.Array) and (x.is_deleted() or not x.is_fully_addressable):
        return 0, 0
    nans, infinite = count(jax.numpy.asarray(x))
    return int(nans), int(infinite)
