"""What an object shows of itself, under the name that code of the NNX API imports this from."""

from weft._core.repr import Attr as Attr, Object as Object
from weft._core.repr import represent
from weft._core.types import Representable as Representable

get_repr = represent
