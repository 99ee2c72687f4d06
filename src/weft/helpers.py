"""Containers and `TrainState`, under the name that code of the NNX API imports them from."""

from typing import Any as _Any

from weft._module import Dict as Dict
from weft._module import List as List
from weft._module import Sequential as Sequential


def __getattr__(name: str) -> _Any:
    if name != "TrainState":  # which loads Optax
        raise AttributeError(f"module 'weft.helpers' has no attribute {name!r}")
    from weft.train.train_state import TrainState

    return TrainState
