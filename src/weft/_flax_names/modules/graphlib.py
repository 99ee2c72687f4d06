"""Graphs, under the name that code of the NNX API imports them from."""

from weft._core.config import set_graph_mode as set_graph_mode
from weft._core.config import set_graph_updates as set_graph_updates
from weft._core.path import Key as Key
from weft._core.path import Path as PathParts
from weft._core.static import Static as Static
from weft._flax_names.contexts import MergeContext as MergeContext, SplitContext as SplitContext
from weft._flax_names.contexts import merge_context as merge_context, split_context as split_context
from weft._flax_names.flat import flatten as flatten, unflatten as unflatten
from weft._flax_names.node_kinds import is_graph_node as is_graph_node, is_node as is_node
from weft._flax_names.node_kinds import is_node_leaf as is_node_leaf
from weft._flax_names.node_kinds import is_pytree_node as is_pytree_node
from weft._flax_names.node_kinds import jax_to_nnx_path as jax_to_nnx_path
from weft._flax_names.round_trips import UpdateContext as UpdateContext
from weft._flax_names.round_trips import current_update_context as current_update_context
from weft._flax_names.round_trips import update_context as update_context
from weft._flax_names.unpack import unpack as unpack
from weft._flax_names.variable_modes import vars_as as vars_as, with_vars as with_vars
from weft._graph.api import as_pure as as_pure, clone as clone, find_duplicates as find_duplicates
from weft._graph.api import graphdef as graphdef, merge as merge, pop as pop, pure as pure
from weft._graph.api import set_metadata as set_metadata, split as split, state as state
from weft._graph.api import variables as variables
from weft._graph.graph_state import GraphState as GraphState
from weft._graph.iterate import iter_children as iter_children, iter_graph as iter_graph, map as map
from weft._graph.iterate import recursive_map as recursive_map
from weft._graph.proxy import CallableProxy as CallableProxy, PureState as PureState, call as call
from weft._graph.records import GraphDef as GraphDef, NodeDef as NodeDef, VariableDef as VariableDef
from weft._graph.state import FlatState as FlatState, State as State, map_state as map_state
from weft._graph.updates import update as update
from weft._lift.partial import cached_partial as cached_partial
from weft._module.module import iter_module_children as iter_module_children
from weft._variable.variable import Variable as Variable
