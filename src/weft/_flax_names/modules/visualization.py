"""`display`, under the name that code of the NNX API imports it from."""

from weft._core.drawing import render_object_constructor as render_object_constructor
from weft.tools.display import display as display
