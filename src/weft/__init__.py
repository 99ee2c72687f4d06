from weft._module import *
from weft._graph import *
from weft._variable import *
__version__="0.1.0"
