"""Derivatives, under the name that code of the NNX API imports them from."""

from weft._lift import DiffState as DiffState
from weft._lift import custom_vjp as custom_vjp
from weft._lift import grad as grad
from weft._lift import jvp as jvp
from weft._lift import remat as remat
from weft._lift import value_and_grad as value_and_grad
from weft._lift import vjp as vjp
