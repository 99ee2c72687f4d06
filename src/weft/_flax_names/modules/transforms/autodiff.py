"""Derivatives, under the name that code of the NNX API imports them from."""

from weft._lift.abstract import remat as remat
from weft._lift.autodiff import DiffState as DiffState, grad as grad
from weft._lift.autodiff import value_and_grad as value_and_grad
from weft._lift.custom_vjp import custom_vjp as custom_vjp
from weft._lift.vjp import jvp as jvp, vjp as vjp
