"""The way back: what objects hold at some moment, to be put back into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft._graph import from_flat_state, state, to_flat_state, update
from weft._variable.variable import Variable, raw_value


class Undo:
    """Keeps what objects hold, without copying it.

    The arrays are handed out here, so that no compiled function of Weft overwrites them.

    Args:
      objects: objects by name.

    Example:
      >>> import weft as nnx
      >>> from weft.train.undo import Undo
      >>> objects = {"count": nnx.Variable(1)}
      >>> undo = Undo(objects)
      >>> objects["count"][...] += 1
      >>> undo.put_back()
      >>> objects["count"][...]
      1
    """

    def __init__(self, objects: Mapping[str, Any]):
        self._objects = dict(objects)
        self._leaves = dict(to_flat_state(state(self._objects)))
        self._values = {path: raw_value(leaf) for path, leaf in self._leaves.items()}

    def put_back(self) -> None:
        """Makes the objects hold it again."""
        flat = {
            path: leaf.copy(self._values[path]) if isinstance(leaf, Variable) else leaf
            for path, leaf in self._leaves.items()
        }
        update(self._objects, from_flat_state(flat))
