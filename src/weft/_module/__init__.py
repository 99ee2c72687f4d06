"""Objects and Modules; see the README in this folder."""

from weft._module.module import Module as Module
from weft._object.pytree import A, StaticAttribute
from weft._object.pytree import Data as Data
from weft._object.pytree import Object as Object
from weft._object.pytree import Pytree as Pytree
from weft._object.pytree import check_pytree as check_pytree
from weft._object.pytree import data as data
from weft._object.pytree import has_data as has_data
from weft._object.pytree import is_data as is_data
from weft._object.pytree import register_data_type as register_data_type
from weft._object.pytree import static as static

Static = StaticAttribute[A]
