"""Branches and abstract evaluation, under the name that code of the NNX API imports them from."""

from weft._lift.abstract import checkify as checkify, eval_shape as eval_shape
from weft._lift.abstract import make_jaxpr as make_jaxpr
from weft._lift.branch import cond as cond, switch as switch
