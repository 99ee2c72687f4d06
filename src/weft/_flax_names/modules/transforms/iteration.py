"""Maps and loops, under the name that code of the NNX API imports them from."""

from weft._lift.loop import Carry as Carry, scan as scan
from weft._lift.map import StateAxes as StateAxes, pmap as pmap
from weft._lift.map import transform_metadata as transform_metadata, vmap as vmap
from weft._lift.repeat import fori_loop as fori_loop, while_loop as while_loop
