"""Linen Modules inside models of Weft, and the other way round.

A Linen Module keeps no state: its *variables* are nested dicts by *collection* ("params",
"batch_stats", ...), handed to each call. `ToNNX` holds them as Variables; `ToLinen` hands the
Variables of a Module over as collections. Flax is imported when one of these names is first used.
"""

import importlib as _importlib
from typing import TYPE_CHECKING
from typing import Any as _Any

from weft.nn import initializers as initializers

if TYPE_CHECKING:
    from weft.bridge import variables as variables
    from weft.bridge import wrappers as wrappers
    from weft.bridge.linen_in_nnx import ToNNX as ToNNX
    from weft.bridge.linen_in_nnx import lazy_init as lazy_init
    from weft.bridge.nnx_in_linen import ToLinen as ToLinen
    from weft.bridge.nnx_in_linen import to_linen as to_linen
    from weft.bridge.variables import NNXMeta as NNXMeta
    from weft.bridge.variables import with_partitioning as with_partitioning

_LAZY = {
    "NNXMeta": "weft.bridge.variables",
    "ToLinen": "weft.bridge.nnx_in_linen",
    "ToNNX": "weft.bridge.linen_in_nnx",
    "current_module": "weft.bridge.module",
    "lazy_init": "weft.bridge.linen_in_nnx",
    "module": "weft.bridge.module",
    "to_linen": "weft.bridge.nnx_in_linen",
    "variables": "weft.bridge.variables",
    "with_partitioning": "weft.bridge.variables",
    "wrappers": "weft.bridge.wrappers",
}


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        from weft._core.foreign_names import BRIDGE, missing_name

        raise missing_name(__name__, name, BRIDGE)
    try:
        module = _importlib.import_module(_LAZY[name])
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("flax"):
            raise
        raise ModuleNotFoundError(
            "nnx.bridge needs Flax, whose Linen Modules it connects: `pip install 'weft[flax]'`",
            name=error.name,
        ) from error
    value = module if _LAZY[name] == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
