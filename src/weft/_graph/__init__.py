"""Graphs: the one walk over objects and what is built on it; see the README in this folder."""

from collections.abc import Callable
from typing import Any

from weft._core.repr import count_by
from weft._graph.api import as_pure as as_pure
from weft._graph.api import clone as clone
from weft._graph.api import find_duplicates as find_duplicates
from weft._graph.api import graphdef as graphdef
from weft._graph.api import merge as merge
from weft._graph.api import pop as pop
from weft._graph.api import pure as pure
from weft._graph.api import set_metadata as set_metadata
from weft._graph.api import split as split
from weft._graph.api import state as state
from weft._graph.api import variables as variables
from weft._graph.proxy import PureState as PureState
from weft._graph.proxy import call as call
from weft._graph.records import GraphDef as GraphDef
from weft._graph.state import FlatState as FlatState
from weft._graph.state import State as State
from weft._graph.state import filter_state as filter_state
from weft._graph.state import from_flat_state as from_flat_state
from weft._graph.state import map_state as map_state
from weft._graph.state import merge_state as merge_state
from weft._graph.state import replace_by_pure_dict as replace_by_pure_dict
from weft._graph.state import restore_int_paths as restore_int_paths
from weft._graph.state import split_state as split_state
from weft._graph.state import to_flat_state as to_flat_state
from weft._graph.state import to_pure_dict as to_pure_dict
from weft._graph.updates import update as update


def _counts_in(root: Any) -> Callable[[Any], str]:
    from weft._graph.tally import Counts  # which most programs do without

    return Counts(root)


count_by(_counts_in)
