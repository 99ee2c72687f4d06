"""The wrappers, under the name that code of the NNX API imports them from."""

from weft.bridge.linen_in_nnx import ToNNX as ToNNX
from weft.bridge.linen_in_nnx import lazy_init as lazy_init
from weft.bridge.nnx_in_linen import ToLinen as ToLinen
from weft.bridge.nnx_in_linen import to_linen as to_linen
