"""Weft: neural networks on JAX with stateful, object-oriented models.

The public API, grouped by area in the order of the data flow. Names that need an optional or a
heavy library are looked up when first used.
"""

import importlib as _importlib
from typing import Any as _Any

from weft import filterlib as filterlib
from weft import nn as nn
from weft import statelib as statelib

# Settings and errors
from weft._config import set_auto_donation as set_auto_donation
from weft._config import set_graph_mode as set_graph_mode
from weft._config import set_graph_updates as set_graph_updates
from weft._config import set_retrace_limit as set_retrace_limit
from weft._config import use_eager_sharding as use_eager_sharding
from weft._config import using_eager_sharding as using_eager_sharding
from weft._errors import AliasError as AliasError
from weft._errors import CycleError as CycleError
from weft._errors import FilterError as FilterError
from weft._errors import PrefixError as PrefixError
from weft._errors import RetraceError as RetraceError
from weft._errors import SharedReferenceError as SharedReferenceError
from weft._errors import StructureError as StructureError
from weft._errors import TraceContextError as TraceContextError
from weft._errors import WeftError as WeftError

# Filters
from weft._filters import All as All
from weft._filters import Any as Any
from weft._filters import Everything as Everything
from weft._filters import Not as Not
from weft._filters import Nothing as Nothing
from weft._filters import OfType as OfType
from weft._filters import PathContains as PathContains
from weft._filters import WithTag as WithTag

# Graphs
from weft._graph import FlatState as FlatState
from weft._graph import GraphDef as GraphDef
from weft._graph import GraphState as GraphState
from weft._graph import State as State
from weft._graph import as_pure as as_pure
from weft._graph import clone as clone
from weft._graph import filter_state as filter_state
from weft._graph import find_duplicates as find_duplicates
from weft._graph import from_flat_state as from_flat_state
from weft._graph import graphdef as graphdef
from weft._graph import iter_children as iter_children
from weft._graph import iter_graph as iter_graph
from weft._graph import iter_module_children as iter_module_children
from weft._graph import iter_modules as iter_modules
from weft._graph import map as map
from weft._graph import map_state as map_state
from weft._graph import merge as merge
from weft._graph import merge_state as merge_state
from weft._graph import pop as pop
from weft._graph import pure as pure
from weft._graph import recursive_map as recursive_map
from weft._graph import replace_by_pure_dict as replace_by_pure_dict
from weft._graph import restore_int_paths as restore_int_paths
from weft._graph import set_metadata as set_metadata
from weft._graph import split as split
from weft._graph import split_state as split_state
from weft._graph import state as state
from weft._graph import to_flat_state as to_flat_state
from weft._graph import to_pure_dict as to_pure_dict
from weft._graph import unpack as unpack
from weft._graph import update as update
from weft._graph import variables as variables
from weft._graph.capture import capture as capture
from weft._graph.contexts import MergeContext as MergeContext
from weft._graph.node_states import NodeStates as NodeStates
from weft._graph.contexts import SplitContext as SplitContext
from weft._graph.node_states import from_tree as from_tree
from weft._graph.contexts import merge_context as merge_context
from weft._graph.contexts import split_context as split_context
from weft._graph.node_states import to_tree as to_tree
from weft._graph.flat import flatten as flatten
from weft._graph.flat import unflatten as unflatten
from weft._graph.node_prefix import prefix as prefix
from weft._graph.proxy import PureState as PureState
from weft._graph.proxy import call as call
from weft._graph.variable_modes import var_defaults as var_defaults
from weft._graph.variable_modes import vars_as as vars_as
from weft._graph.variable_modes import with_vars as with_vars
from weft._graph.view import view as view
from weft._graph.view import view_info as view_info
from weft._graph.view import with_attributes as with_attributes

# Transforms
from weft._lift import Carry as Carry
from weft._lift import DiffState as DiffState
from weft._lift import StateAxes as StateAxes
from weft._lift import StateSharding as StateSharding
from weft._lift import assert_max_traces as assert_max_traces
from weft._lift import checkify as checkify
from weft._lift import cond as cond
from weft._lift import custom_vjp as custom_vjp
from weft._lift import eval_shape as eval_shape
from weft._lift import fori_loop as fori_loop
from weft._lift import grad as grad
from weft._lift import jit as jit
from weft._lift import jvp as jvp
from weft._lift import make_jaxpr as make_jaxpr
from weft._lift import pmap as pmap
from weft._lift import remat as remat
from weft._lift import scan as scan
from weft._lift import shard_map as shard_map
from weft._lift import switch as switch
from weft._lift import transform_metadata as transform_metadata
from weft._lift import value_and_grad as value_and_grad
from weft._lift import vjp as vjp
from weft._lift import vmap as vmap
from weft._lift import while_loop as while_loop
from weft._lift.partial import cached_partial as cached_partial
from weft._lift.partial import jit_partial as jit_partial

# Variables
from weft._metadata import VariableMetadata as VariableMetadata
from weft._metadata import with_metadata as with_metadata

# Modules
from weft._module import Data as Data
from weft._module import Dict as Dict
from weft._module import List as List
from weft._module import Module as Module
from weft._module import Object as Object
from weft._module import Pytree as Pytree
from weft._module import Sequential as Sequential
from weft._module import Static as Static
from weft._module import check_pytree as check_pytree
from weft._module import data as data
from weft._module import dataclass as dataclass
from weft._module import has_data as has_data
from weft._module import is_data as is_data
from weft._module import register_data_type as register_data_type
from weft._module import static as static

# Randomness
from weft._rng import RngCount as RngCount
from weft._rng import RngKey as RngKey
from weft._rng import Rngs as Rngs
from weft._rng import RngState as RngState
from weft._rng import RngStream as RngStream
from weft._rng import backup_keys as backup_keys
from weft._rng import fork_rngs as fork_rngs
from weft._rng import reseed as reseed
from weft._rng import restore_rngs as restore_rngs
from weft._rng import split_rngs as split_rngs
from weft._rng import with_rngs as with_rngs
from weft._types import A as A
from weft._types import M as M
from weft._variable_types import BatchStat as BatchStat
from weft._variable_types import Cache as Cache
from weft._variable_types import Intermediate as Intermediate
from weft._variable_types import Param as Param
from weft._variable_types import Perturbation as Perturbation
from weft._variable import Variable as Variable
from weft._variable_names import register_variable_name as register_variable_name
from weft._variable_names import variable_name_from_type as variable_name_from_type
from weft._variable_names import variable_type_from_name as variable_type_from_name

# Sharding
from weft._partitioning import PARTITION_NAME as PARTITION_NAME
from weft._abstract_model import abstract_with_sharding as abstract_with_sharding
from weft._abstract_model import as_abstract as as_abstract
from weft._abstract_model import get_abstract_model as get_abstract_model
from weft._partitioning import get_named_sharding as get_named_sharding
from weft._partitioning import get_partition_spec as get_partition_spec
from weft._partitioning import with_partitioning as with_partitioning
from weft._sharding import logical_axis_rules as logical_axis_rules

# Layers
from weft.nn import initializers as initializers
from weft.nn import AdaptiveAvgPool as AdaptiveAvgPool
from weft.nn import AdaptiveMaxPool as AdaptiveMaxPool
from weft.nn import avg_pool as avg_pool
from weft.nn import AvgPool as AvgPool
from weft.nn import BatchNorm as BatchNorm
from weft.nn import Bidirectional as Bidirectional
from weft.nn import celu as celu
from weft.nn import combine_masks as combine_masks
from weft.nn import Conv as Conv
from weft.nn import ConvTranspose as ConvTranspose
from weft.nn import dot_product_attention as dot_product_attention
from weft.nn import dot_product_attention_with_rope as dot_product_attention_with_rope
from weft.nn import Dropout as Dropout
from weft.nn import Einsum as Einsum
from weft.nn import elu as elu
from weft.nn import Embed as Embed
from weft.nn import Flatten as Flatten
from weft.nn import gelu as gelu
from weft.nn import GlobalAvgPool as GlobalAvgPool
from weft.nn import GlobalMaxPool as GlobalMaxPool
from weft.nn import glu as glu
from weft.nn import GroupNorm as GroupNorm
from weft.nn import GRUCell as GRUCell
from weft.nn import hard_sigmoid as hard_sigmoid
from weft.nn import hard_silu as hard_silu
from weft.nn import hard_swish as hard_swish
from weft.nn import hard_tanh as hard_tanh
from weft.nn import Identity as Identity
from weft.nn import identity as identity
from weft.nn import Initializer as Initializer
from weft.nn import InstanceNorm as InstanceNorm
from weft.nn import LayerNorm as LayerNorm
from weft.nn import leaky_relu as leaky_relu
from weft.nn import Linear as Linear
from weft.nn import LinearGeneral as LinearGeneral
from weft.nn import log_sigmoid as log_sigmoid
from weft.nn import log_softmax as log_softmax
from weft.nn import logsumexp as logsumexp
from weft.nn import LoRA as LoRA
from weft.nn import lora as lora
from weft.nn import LoRALinear as LoRALinear
from weft.nn import LoRAParam as LoRAParam
from weft.nn import LSTMCell as LSTMCell
from weft.nn import make_attention_mask as make_attention_mask
from weft.nn import make_causal_mask as make_causal_mask
from weft.nn import max_pool as max_pool
from weft.nn import MaxPool as MaxPool
from weft.nn import min_pool as min_pool
from weft.nn import MinPool as MinPool
from weft.nn import MultiHeadAttention as MultiHeadAttention
from weft.nn import one_hot as one_hot
from weft.nn import OptimizedLSTMCell as OptimizedLSTMCell
from weft.nn import pool as pool
from weft.nn import PReLU as PReLU
from weft.nn import relu as relu
from weft.nn import relu6 as relu6
from weft.nn import RMSNorm as RMSNorm
from weft.nn import RNN as RNN
from weft.nn import RNNCellBase as RNNCellBase
from weft.nn import RoPE as RoPE
from weft.nn import selu as selu
from weft.nn import sigmoid as sigmoid
from weft.nn import silu as silu
from weft.nn import SimpleCell as SimpleCell
from weft.nn import soft_sign as soft_sign
from weft.nn import softmax as softmax
from weft.nn import softplus as softplus
from weft.nn import SpectralNorm as SpectralNorm
from weft.nn import Stack as Stack
from weft.nn import stack as stack
from weft.nn import standardize as standardize
from weft.nn import swish as swish
from weft.nn import tanh as tanh
from weft.nn import unstack as unstack
from weft.nn import WeightNorm as WeightNorm

__version__ = "0.1.0"

_LAZY = {
    "bridge": "weft.bridge",
    "compat": "weft.compat",
    "display": "weft.tools.display",
    "EMA": "weft.train.ema",
    "extract": "weft.extract",
    "graph": "weft.graph",
    "graphlib": "weft.graphlib",
    "helpers": "weft.helpers",
    "Metric": "weft.train.metrics",
    "metrics": "weft.train.metrics",
    "ModelAndOptimizer": "weft.train.optimizer",
    "module": "weft.module",
    "MultiMetric": "weft.train.metrics",
    "object": "weft.pytreelib",
    "OptArray": "weft.train.opt_state",
    "optimizer": "weft.train.optimizer",
    "Optimizer": "weft.train.optimizer",
    "OptState": "weft.train.opt_state",
    "OptVariable": "weft.train.opt_state",
    "proxy_caller": "weft.proxy_caller",
    "pytreelib": "weft.pytreelib",
    "rnglib": "weft.rnglib",
    "spmd": "weft.spmd",
    "summary": "weft.summary",
    "tabulate": "weft.tools.summary",
    "training": "weft.training",
    "TrainState": "weft.train.train_state",
    "transforms": "weft.transforms",
    "traversals": "weft.traversals",
    "variablelib": "weft.variablelib",
    "VariableState": "weft.variablelib",
    "visualization": "weft.visualization",
    "wrappers": "weft.bridge.wrappers",
}


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    module = _importlib.import_module(_LAZY[name])
    value = getattr(module, name, module)
    if isinstance(value, type(_importlib)):  # the module itself is meant
        value = module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
