"""`Dropout`, under the name that code of the NNX API imports it from."""

from weft.nn.dropout import Dropout as Dropout
from weft.nn.nnx_names import names_for

__getattr__ = names_for(__name__)
