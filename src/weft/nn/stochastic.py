"""`Dropout`, under the name that code of the NNX API imports it from."""

from weft.nn.dropout import Dropout as Dropout
