"""Transforms, under the name that code of the NNX API imports them from."""

from . import autodiff as autodiff, compilation as compilation, general as general
from . import iteration as iteration, transforms as transforms
