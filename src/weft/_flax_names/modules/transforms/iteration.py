"""Maps and loops, under the name that code of the NNX API imports them from."""

from weft._lift.loop import Carry as Carry
from weft._lift.loop import scan as scan
from weft._lift.map import StateAxes as StateAxes
from weft._lift.map import pmap as pmap
from weft._lift.map import transform_metadata as transform_metadata
from weft._lift.map import vmap as vmap
from weft._lift.repeat import fori_loop as fori_loop
from weft._lift.repeat import while_loop as while_loop
