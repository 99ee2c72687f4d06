"""Objects inside pytrees, under the name that code of the NNX API imports this from."""

from weft._core.path import Path as PathParts
from weft._flax_names.node_prefix import prefix as prefix
from weft._flax_names.node_states import NodeStates as NodeStates
from weft._flax_names.node_states import clear_non_graph_nodes as clear_non_graph_nodes
from weft._flax_names.node_states import default_split_fn as default_split_fn
from weft._flax_names.node_states import from_tree as from_tree, is_tree_node as is_tree_node
from weft._flax_names.node_states import merge_tree_node as merge_tree_node, to_tree as to_tree
from weft._graph.prefix import PrefixMapping as PrefixMapping
from weft._graph.state import State as State
