"""Branches and abstract evaluation, under the name that code of the NNX API imports them from."""

from weft._lift import checkify as checkify
from weft._lift import cond as cond
from weft._lift import eval_shape as eval_shape
from weft._lift import make_jaxpr as make_jaxpr
from weft._lift import switch as switch
