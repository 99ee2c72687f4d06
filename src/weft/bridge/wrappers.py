"""The wrappers, under the name that code of the NNX API imports them from."""

from typing import TYPE_CHECKING

from weft._core.elsewhere import names_from as _names_from

if TYPE_CHECKING:
    from weft.bridge.linen_in_nnx import ToNNX as ToNNX
    from weft.bridge.linen_in_nnx import lazy_init as lazy_init
    from weft.bridge.nnx_in_linen import ToLinen as ToLinen
    from weft.bridge.nnx_in_linen import to_linen as to_linen

__all__ = ["ToLinen", "ToNNX", "lazy_init", "to_linen"]
__getattr__ = _names_from(__name__, dict.fromkeys(__all__, "weft.bridge"))  # which needs Flax


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
