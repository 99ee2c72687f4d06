"""Containers and `TrainState`, under the name that code of the NNX API imports them from."""

from typing import TYPE_CHECKING

from weft._core.elsewhere import names_from as _names_from
from weft._graph.records import GraphDef as GraphDef
from weft._graph.state import State as State
from weft._module import Module as Module
from weft._module.containers import Dict as Dict, List as List, Sequential as Sequential
from weft._rng import Rngs as Rngs
from weft._variable.variable import Variable as Variable

if TYPE_CHECKING:
    from weft.train.train_state import TrainState as TrainState

__getattr__ = _names_from(__name__, {"TrainState": "weft.train.train_state"})  # which loads Optax
