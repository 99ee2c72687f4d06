"""Objects inside pytrees, under the name that code of the NNX API imports this from."""

from weft._graph.node_prefix import prefix as prefix
from weft._graph.node_states import NodeStates as NodeStates
from weft._graph.node_states import clear_non_graph_nodes as clear_non_graph_nodes
from weft._graph.node_states import default_split_fn as default_split_fn
from weft._graph.node_states import from_tree as from_tree
from weft._graph.node_states import is_tree_node as is_tree_node
from weft._graph.node_states import merge_tree_node as merge_tree_node
from weft._graph.node_states import to_tree as to_tree
from weft._graph.prefix import PrefixMapping as PrefixMapping
from weft._graph.state import State as State
from weft._path import Path as PathParts  # noqa: F401
