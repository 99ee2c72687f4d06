"""The public names and where each is defined, grouped by area in the order of the data flow.

For type checkers; `__init__.py` has the same names in a table, and imports what is used when it is.
"""

from weft._flax_names.modules import filterlib as filterlib, reprlib as reprlib, tracers as tracers
from weft import nn as nn
from weft._flax_names.modules import statelib as statelib

# Settings, caches and errors
from weft._core.caches import clear_caches as clear_caches
from weft._core.config import set_auto_donation as set_auto_donation
from weft._core.config import set_graph_mode as set_graph_mode
from weft._core.config import set_graph_updates as set_graph_updates
from weft._core.config import set_retrace_limit as set_retrace_limit
from weft._core.config import use_eager_sharding as use_eager_sharding
from weft._core.config import using_eager_sharding as using_eager_sharding
from weft._core.errors import AliasError as AliasError, CheckpointError as CheckpointError
from weft._core.errors import CycleError as CycleError
from weft._core.errors import FilterError as FilterError, PrefixError as PrefixError
from weft._core.errors import RetraceError as RetraceError
from weft._core.errors import SharedReferenceError as SharedReferenceError
from weft._core.errors import StructureError as StructureError
from weft._core.errors import TraceContextError as TraceContextError, WeftError as WeftError

# Filters
from weft._core.filters import All as All, Any as Any, Everything as Everything, Not as Not
from weft._core.filters import Nothing as Nothing, OfType as OfType, PathContains as PathContains
from weft._core.filters import WithTag as WithTag

# Graphs
from weft._graph import FlatState as FlatState, GraphDef as GraphDef
from weft._graph.graph_state import GraphState as GraphState
from weft._graph import State as State, as_pure as as_pure, clone as clone
from weft._graph import filter_state as filter_state, find_duplicates as find_duplicates
from weft._graph import from_flat_state as from_flat_state, graphdef as graphdef
from weft._graph.iterate import iter_children as iter_children, iter_graph as iter_graph
from weft._module.module import iter_module_children as iter_module_children
from weft._module.module import iter_modules as iter_modules
from weft._graph.iterate import map as map
from weft._graph import map_state as map_state, merge as merge, merge_state as merge_state
from weft._graph import pop as pop, pure as pure
from weft._graph.iterate import recursive_map as recursive_map
from weft._graph import replace_by_pure_dict as replace_by_pure_dict
from weft._graph import restore_int_paths as restore_int_paths, set_metadata as set_metadata
from weft._graph import split as split, split_state as split_state, state as state
from weft._graph import to_flat_state as to_flat_state, to_pure_dict as to_pure_dict
from weft._flax_names.unpack import unpack as unpack
from weft._graph import update as update, variables as variables
from weft._module.capture import capture as capture
from weft._flax_names.contexts import MergeContext as MergeContext
from weft._flax_names.node_states import NodeStates as NodeStates
from weft._flax_names.contexts import SplitContext as SplitContext
from weft._flax_names.round_trips import UpdateContext as UpdateContext
from weft._flax_names.round_trips import current_update_context as current_update_context
from weft._flax_names.node_states import from_tree as from_tree
from weft._flax_names.contexts import merge_context as merge_context, split_context as split_context
from weft._flax_names.node_states import to_tree as to_tree
from weft._flax_names.round_trips import update_context as update_context
from weft._flax_names.flat import flatten as flatten, unflatten as unflatten
from weft._flax_names.node_prefix import prefix as prefix
from weft._graph.proxy import PureState as PureState, call as call
from weft._flax_names.variable_modes import var_defaults as var_defaults, vars_as as vars_as
from weft._flax_names.variable_modes import with_vars as with_vars
from weft._module.view import view as view, view_info as view_info
from weft._module.view import with_attributes as with_attributes

# Transforms
from weft._lift.loop import Carry as Carry
from weft._lift.autodiff import DiffState as DiffState
from weft._lift.map import StateAxes as StateAxes
from weft._lift.jit.jit import StateSharding as StateSharding
from weft._lift.jit.trace_log import assert_max_traces as assert_max_traces
from weft._lift.abstract import checkify as checkify
from weft._lift.branch import cond as cond
from weft._lift.custom_vjp import custom_vjp as custom_vjp
from weft._lift.abstract import eval_shape as eval_shape
from weft._lift.repeat import fori_loop as fori_loop
from weft._lift.autodiff import grad as grad
from weft._lift.jit.jit import jit as jit
from weft._lift.vjp import jvp as jvp
from weft._lift.abstract import make_jaxpr as make_jaxpr
from weft._lift.map import pmap as pmap
from weft._lift.abstract import remat as remat
from weft._lift.loop import scan as scan
from weft._lift.shards import shard_map as shard_map
from weft._lift.branch import switch as switch
from weft._lift.map import transform_metadata as transform_metadata
from weft._lift.autodiff import value_and_grad as value_and_grad
from weft._lift.vjp import vjp as vjp
from weft._lift.map import vmap as vmap
from weft._lift.repeat import while_loop as while_loop
from weft._lift.partial import cached_partial as cached_partial, jit_partial as jit_partial

# Variables
from weft._variable.metadata import VariableMetadata as VariableMetadata
from weft._variable.metadata import with_metadata as with_metadata

# Modules
from weft._module import Data as Data
from weft._module.containers import Dict as Dict, List as List
from weft._module import Module as Module, Object as Object, Pytree as Pytree
from weft._module.containers import Sequential as Sequential
from weft._module import Static as Static, check_pytree as check_pytree, data as data
from weft._module.dataclass import dataclass as dataclass
from weft._module import has_data as has_data, is_data as is_data
from weft._module import register_data_type as register_data_type, static as static

# Randomness
from weft._rng import RngCount as RngCount, RngKey as RngKey, Rngs as Rngs, RngState as RngState
from weft._rng import RngStream as RngStream
from weft._rng.backups import backup_keys as backup_keys
from weft._rng.rekey import fork_rngs as fork_rngs
from weft._rng.reseed import reseed as reseed
from weft._rng.backups import restore_rngs as restore_rngs
from weft._rng.rekey import split_rngs as split_rngs, with_rngs as with_rngs

# Variables
from weft._core.types import A as A, M as M
from weft._variable.types import BatchStat as BatchStat, Cache as Cache
from weft._variable.types import Intermediate as Intermediate, Param as Param
from weft._variable.types import Perturbation as Perturbation
from weft._variable.variable import Variable as Variable
from weft._variable.names import register_variable_name as register_variable_name
from weft._variable.names import variable_name_from_type as variable_name_from_type
from weft._variable.names import variable_type_from_name as variable_type_from_name

# Sharding
from weft._sharding.partitioning import PARTITION_NAME as PARTITION_NAME
from weft._sharding.abstract_model import abstract_with_sharding as abstract_with_sharding
from weft._sharding.abstract_model import as_abstract as as_abstract
from weft._sharding.abstract_model import get_abstract_model as get_abstract_model
from weft._sharding.partitioning import get_named_sharding as get_named_sharding
from weft._sharding.partitioning import get_partition_spec as get_partition_spec
from weft._sharding.partitioning import with_partitioning as with_partitioning
from weft._variable.sharding import logical_axis_rules as logical_axis_rules

# Saving
from weft._saving.save import SavedFile as SavedFile, load as load, restore as restore, save as save
from weft.nn.torch_weights import Into as Into
from weft.tools.weights.load import load_weights as load_weights
from weft.tools.weights.save import save_weights as save_weights
from weft.tools.weights.report import WeightReport as WeightReport, WeightRow as WeightRow

# Layers
from weft.nn import initializers as initializers, AdaptiveAvgPool as AdaptiveAvgPool
from weft.nn import AdaptiveMaxPool as AdaptiveMaxPool, avg_pool as avg_pool, AvgPool as AvgPool
from weft.nn import BatchNorm as BatchNorm, Bidirectional as Bidirectional, celu as celu
from weft.nn import combine_masks as combine_masks, Conv as Conv, ConvTranspose as ConvTranspose
from weft.nn import dot_product_attention as dot_product_attention
from weft.nn import dot_product_attention_with_rope as dot_product_attention_with_rope
from weft.nn import Dropout as Dropout, Einsum as Einsum, elu as elu, Embed as Embed
from weft.nn import Flatten as Flatten, gelu as gelu, GlobalAvgPool as GlobalAvgPool
from weft.nn import GlobalMaxPool as GlobalMaxPool, glu as glu, GroupNorm as GroupNorm
from weft.nn import GRUCell as GRUCell, hard_sigmoid as hard_sigmoid, hard_silu as hard_silu
from weft.nn import hard_swish as hard_swish, hard_tanh as hard_tanh, Identity as Identity
from weft.nn import identity as identity, Initializer as Initializer, InstanceNorm as InstanceNorm
from weft.nn import LayerNorm as LayerNorm, leaky_relu as leaky_relu, Linear as Linear
from weft.nn import linear_cross_entropy as linear_cross_entropy
from weft.nn import LinearGeneral as LinearGeneral, log_sigmoid as log_sigmoid
from weft.nn import log_softmax as log_softmax, logsumexp as logsumexp, LoRA as LoRA
from weft.nn.adapt import lora as lora
from weft.nn import LoRALinear as LoRALinear, LoRAParam as LoRAParam, LSTMCell as LSTMCell
from weft.nn import make_attention_mask as make_attention_mask, make_causal_mask as make_causal_mask
from weft.nn import max_pool as max_pool, MaxPool as MaxPool, min_pool as min_pool
from weft.nn import MinPool as MinPool, MultiHeadAttention as MultiHeadAttention, one_hot as one_hot
from weft.nn import OptimizedLSTMCell as OptimizedLSTMCell, pool as pool, PReLU as PReLU
from weft.nn import relu as relu, relu6 as relu6, RMSNorm as RMSNorm, RNN as RNN
from weft.nn import RNNCellBase as RNNCellBase, RoPE as RoPE, selu as selu, sigmoid as sigmoid
from weft.nn import silu as silu, SimpleCell as SimpleCell, soft_sign as soft_sign
from weft.nn import softmax as softmax, softplus as softplus, SpectralNorm as SpectralNorm
from weft.nn import Stack as Stack
from weft.nn.restack import stack as stack
from weft.nn import standardize as standardize, swish as swish, tanh as tanh, unstack as unstack
from weft.nn import WeightNorm as WeightNorm

# Training, tools, bridges, and modules that hold the same names by area
from weft import bridge as bridge
from weft._flax_names.modules import compat as compat
from weft.tools import debug as debug
from weft.tools.display import display as display
from weft.train.ema import EMA as EMA
from weft._flax_names.modules import extract as extract, graph as graph, graphlib as graphlib
from weft._flax_names.modules import helpers as helpers
from weft.train.metrics import Metric as Metric
from weft.train import metrics as metrics
from weft.train.optimizer import ModelAndOptimizer as ModelAndOptimizer
from weft._flax_names.modules import module as module
from weft.train.metrics import MultiMetric as MultiMetric
from weft._flax_names.modules import object as object
from weft.train.opt_state import OptArray as OptArray
from weft.train import optimizer as optimizer
from weft.train.optimizer import Optimizer as Optimizer
from weft.train.opt_state import OptState as OptState, OptVariable as OptVariable
from weft._flax_names.modules import proxy_caller as proxy_caller, pytreelib as pytreelib
from weft._flax_names.modules import rnglib as rnglib, spmd as spmd, summary as summary
from weft.tools.summary import tabulate as tabulate
from weft._flax_names.modules import training as training
from weft.train.train_state import TrainState as TrainState
from weft._flax_names.modules import transforms as transforms, traversals as traversals
from weft._flax_names.modules import variablelib as variablelib
from weft._flax_names.modules.variablelib import VariableState as VariableState
from weft._flax_names.modules import visualization as visualization
from weft.bridge import wrappers as wrappers

__version__: str
