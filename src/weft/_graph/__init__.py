"""Graphs: the one walk over objects and what is built on it; see the README in this folder."""

from collections.abc import Callable
from typing import Any

from weft._core.repr import count_by
from weft._graph.api import as_pure as as_pure, clone as clone, find_duplicates as find_duplicates
from weft._graph.api import graphdef as graphdef, merge as merge, pop as pop, pure as pure
from weft._graph.api import set_metadata as set_metadata, split as split, state as state
from weft._graph.api import variables as variables
from weft._graph.proxy import PureState as PureState, call as call
from weft._graph.records import GraphDef as GraphDef
from weft._graph.state import FlatState as FlatState, State as State, filter_state as filter_state
from weft._graph.state import from_flat_state as from_flat_state, map_state as map_state
from weft._graph.state import merge_state as merge_state
from weft._graph.state import replace_by_pure_dict as replace_by_pure_dict
from weft._graph.state import restore_int_paths as restore_int_paths, split_state as split_state
from weft._graph.state import to_flat_state as to_flat_state, to_pure_dict as to_pure_dict
from weft._graph.updates import update as update


def _counts_in(root: Any) -> Callable[[Any], str]:
    from weft._graph.tally import Counts  # which most programs do without

    return Counts(root)


count_by(_counts_in)
