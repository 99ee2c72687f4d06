"""Transforms, under the name that code of the NNX API imports them from."""

from weft.transforms import autodiff as autodiff
from weft.transforms import compilation as compilation
from weft.transforms import general as general
from weft.transforms import iteration as iteration
from weft.transforms import transforms as transforms
