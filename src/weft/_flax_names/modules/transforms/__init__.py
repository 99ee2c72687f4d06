"""Transforms, under the name that code of the NNX API imports them from."""

from . import autodiff as autodiff
from . import compilation as compilation
from . import general as general
from . import iteration as iteration
from . import transforms as transforms
