"""Objects, under the name that code of the NNX API imports them from."""

from weft._module import Data as Data
from weft._module import Object as Object
from weft._module import Pytree as Pytree
from weft._module import Static as Static
from weft._module import check_pytree as check_pytree
from weft._module import data as data
from weft._module import dataclass as dataclass
from weft._module import has_data as has_data
from weft._module import is_data as is_data
from weft._module import register_data_type as register_data_type
from weft._module import static as static
