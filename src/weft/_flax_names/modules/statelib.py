"""States, under the name that code of the NNX API imports them from."""

from weft._core.path import Key as Key
from weft._core.path import Path as PathParts
from weft._graph.prefix import create_path_filters as create_path_filters
from weft._graph.state import FlatState as FlatState, State as State, diff as diff
from weft._graph.state import filter_state as filter_state, from_flat_state as from_flat_state
from weft._graph.state import map_state as map_state, merge_state as merge_state
from weft._graph.state import replace_by_pure_dict as replace_by_pure_dict
from weft._graph.state import restore_int_paths as restore_int_paths, split_state as split_state
from weft._graph.state import to_flat_state as to_flat_state, to_pure_dict as to_pure_dict

StateMapping = State
