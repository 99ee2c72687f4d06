"""Modules, under the name that code of the NNX API imports them from."""

from typing import TypeVar as _TypeVar

from weft._core.path import Key as Key
from weft._core.path import Path as PathParts
from weft._graph.iterate import iter_children as iter_children
from weft._graph.records import GraphDef as GraphDef
from weft._graph.state import State as State, split_state as split_state
from weft._module import Module as Module, Pytree as Pytree
from weft._module.capture import capture as capture
from weft._module.module import iter_module_children as iter_module_children
from weft._module.module import iter_modules as iter_modules
from weft._module.view import view as view, view_info as view_info
from weft._module.view import with_attributes as with_attributes

_A = _TypeVar("_A")


def first_from(*args: _A | None, error_msg: str) -> _A:
    """Returns the first argument that is not None.

    Raises:
      ValueError: with the message, if there is none.

    Example:
      >>> from weft.module import first_from
      >>> first_from(None, 3, error_msg="give one of them")
      3
    """
    for arg in args:
        if arg is not None:
            return arg
    raise ValueError(error_msg)
