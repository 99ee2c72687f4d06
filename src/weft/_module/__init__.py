"""Objects and Modules; see the README in this folder."""

from weft._module.module import Module as Module
from weft._module.pytree import A, StaticAttribute
from weft._module.pytree import Data as Data
from weft._module.pytree import Object as Object
from weft._module.pytree import Pytree as Pytree
from weft._module.pytree import check_pytree as check_pytree
from weft._module.pytree import data as data
from weft._module.pytree import has_data as has_data
from weft._module.pytree import is_data as is_data
from weft._module.pytree import register_data_type as register_data_type
from weft._module.pytree import static as static

Static = StaticAttribute[A]
