"""States, under the name that code of the NNX API imports them from."""

from weft._core.path import Key as Key
from weft._core.path import Path as PathParts  # noqa: F401
from weft._graph.prefix import create_path_filters as create_path_filters
from weft._graph.state import FlatState as FlatState
from weft._graph.state import State as State
from weft._graph.state import diff as diff
from weft._graph.state import filter_state as filter_state
from weft._graph.state import from_flat_state as from_flat_state
from weft._graph.state import map_state as map_state
from weft._graph.state import merge_state as merge_state
from weft._graph.state import replace_by_pure_dict as replace_by_pure_dict
from weft._graph.state import restore_int_paths as restore_int_paths
from weft._graph.state import split_state as split_state
from weft._graph.state import to_flat_state as to_flat_state
from weft._graph.state import to_pure_dict as to_pure_dict

StateMapping = State
