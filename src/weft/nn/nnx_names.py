"""Names that code of the NNX API imports from the modules of layers, and where they are here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft._core.elsewhere import names_from

_ANNOTATIONS = """
Array Axis ConvGeneralDilatedT DotGeneralT Dtype EinsumT LaxPadding PaddingLike PrecisionLike
PromoteDtypeFn Shape Size
"""
_ANYWHERE = {
    **dict.fromkeys(_ANNOTATIONS.split(), "weft.nn.nnx_helpers"),
    "Initializer": "weft.nn.initializers",
    "default_bias_init": "weft.nn.initializers",
    "default_kernel_init": "weft.nn.initializers",
    "first_from": "weft.module",
}


def names_for(module: str, **homes: str) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a module of layers; see `names_from`."""
    return names_from(module, _ANYWHERE | homes)
