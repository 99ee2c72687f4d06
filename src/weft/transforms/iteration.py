"""Maps and loops, under the name that code of the NNX API imports them from."""

from weft._lift import Carry as Carry
from weft._lift import StateAxes as StateAxes
from weft._lift import fori_loop as fori_loop
from weft._lift import pmap as pmap
from weft._lift import scan as scan
from weft._lift import transform_metadata as transform_metadata
from weft._lift import vmap as vmap
from weft._lift import while_loop as while_loop
