"""Objects and Modules; see the README in this folder."""

from weft._module.module import Module as Module
from weft._object.pytree import A, StaticAttribute
from weft._object.pytree import Data as Data, Object as Object, Pytree as Pytree
from weft._object.pytree import check_pytree as check_pytree, data as data, has_data as has_data
from weft._object.pytree import is_data as is_data, register_data_type as register_data_type
from weft._object.pytree import static as static

Static = StaticAttribute[A]
