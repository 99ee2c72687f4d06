"""Transforms: the one lift and its instances; see the README in this folder."""

from weft._lift.autodiff import DiffState as DiffState
from weft._lift.autodiff import grad as grad
from weft._lift.autodiff import value_and_grad as value_and_grad
from weft._lift.jit import StateSharding as StateSharding
from weft._lift.jit import jit as jit
