"""Modules, under the name that code of the NNX API imports them from."""

from weft._graph.capture import capture as capture
from weft._graph.iterate import iter_children as iter_children
from weft._graph.iterate import iter_module_children as iter_module_children
from weft._graph.iterate import iter_modules as iter_modules
from weft._graph.view import view as view
from weft._graph.view import view_info as view_info
from weft._graph.view import with_attributes as with_attributes
from weft._module import Module as Module
from weft._module import Pytree as Pytree
