"""Weft: neural networks on JAX with stateful, object-oriented models.

Each public name is imported when it is first used, so that a program pays for what it needs. Type
checkers read the same names in `__init__.pyi`.
"""

from weft._core.elsewhere import names_in as _names_in

__version__ = "0.1.0"
__path__ += [f"{__path__[0]}/_flax_names/modules"]  # `weft.statelib` is one of the peer's names

__all__, __getattr__, __dir__ = _names_in(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "weft": """
            filterlib reprlib tracers nn statelib bridge compat extract graph graphlib helpers
            module object proxy_caller pytreelib rnglib spmd summary training transforms traversals
            variablelib visualization
        """,
        "weft._core.caches": "clear_caches",
        "weft._core.config": """
            set_auto_donation set_graph_mode set_graph_updates set_retrace_limit use_eager_sharding
            using_eager_sharding
        """,
        "weft._core.errors": """
            AliasError CheckpointError CycleError FilterError PrefixError RetraceError
            SharedReferenceError
            StructureError TraceContextError WeftError
        """,
        "weft._core.filters": "All Any Everything Not Nothing OfType PathContains WithTag",
        "weft._graph": """
            FlatState GraphDef State as_pure clone filter_state find_duplicates from_flat_state
            graphdef map_state merge merge_state pop pure replace_by_pure_dict restore_int_paths
            set_metadata split split_state state to_flat_state to_pure_dict update variables
        """,
        "weft._graph.graph_state": "GraphState",
        "weft._flax_names.unpack": "unpack",
        "weft._graph.iterate": """
            iter_children iter_graph map recursive_map
        """,
        "weft._module.capture": "capture",
        "weft._flax_names.contexts": "MergeContext SplitContext merge_context split_context",
        "weft._flax_names.node_states": "NodeStates from_tree to_tree",
        "weft._flax_names.round_trips": "UpdateContext current_update_context update_context",
        "weft._flax_names.flat": "flatten unflatten",
        "weft._flax_names.node_prefix": "prefix",
        "weft._graph.proxy": "PureState call",
        "weft._flax_names.variable_modes": "var_defaults vars_as with_vars",
        "weft._module.view": "view view_info with_attributes",
        "weft._lift.loop": "Carry scan",
        "weft._lift.autodiff": "DiffState grad value_and_grad",
        "weft._lift.map": "StateAxes pmap transform_metadata vmap",
        "weft._lift.jit.jit": "StateSharding jit",
        "weft._lift.jit.trace_log": "assert_max_traces",
        "weft._lift.abstract": "checkify eval_shape make_jaxpr remat",
        "weft._lift.branch": "cond switch",
        "weft._lift.custom_vjp": "custom_vjp",
        "weft._lift.repeat": "fori_loop while_loop",
        "weft._lift.vjp": "jvp vjp",
        "weft._lift.shards": "shard_map",
        "weft._lift.partial": "cached_partial jit_partial",
        "weft._variable.metadata": "VariableMetadata with_metadata",
        "weft._module": """
            Data Module Object Pytree Static check_pytree data has_data is_data register_data_type
            static
        """,
        "weft._module.module": "iter_module_children iter_modules",
        "weft._module.containers": "Dict List Sequential",
        "weft._module.dataclass": "dataclass",
        "weft._rng": "RngCount RngKey Rngs RngState RngStream",
        "weft._rng.backups": "backup_keys restore_rngs",
        "weft._rng.rekey": "fork_rngs split_rngs with_rngs",
        "weft._rng.reseed": "reseed",
        "weft._core.types": "A M",
        "weft._variable.types": "BatchStat Cache Intermediate Param Perturbation",
        "weft._variable.variable": "Variable",
        "weft._variable.names": """
            register_variable_name variable_name_from_type variable_type_from_name
        """,
        "weft._sharding.partitioning": """
            PARTITION_NAME get_named_sharding get_partition_spec with_partitioning
        """,
        "weft._sharding.abstract_model": "abstract_with_sharding as_abstract get_abstract_model",
        "weft._variable.sharding": "logical_axis_rules",
        "weft._saving.save": "SavedFile load restore save",
        "weft.nn": """
            initializers AdaptiveAvgPool AdaptiveMaxPool avg_pool AvgPool BatchNorm Bidirectional
            celu combine_masks Conv ConvTranspose dot_product_attention
            dot_product_attention_with_rope Dropout Einsum elu Embed Flatten gelu GlobalAvgPool
            GlobalMaxPool glu GroupNorm GRUCell hard_sigmoid hard_silu hard_swish hard_tanh Identity
            identity Initializer InstanceNorm LayerNorm leaky_relu Linear linear_cross_entropy
            LinearGeneral log_sigmoid log_softmax logsumexp LoRA LoRALinear LoRAParam LSTMCell
            make_attention_mask make_causal_mask max_pool MaxPool min_pool MinPool
            MultiHeadAttention one_hot OptimizedLSTMCell pool PReLU relu relu6 RMSNorm RNN
            RNNCellBase RoPE selu sigmoid silu SimpleCell soft_sign softmax softplus SpectralNorm
            Stack standardize swish tanh unstack WeightNorm
        """,
        "weft.nn.adapt": "lora",
        "weft.nn.torch_weights": "Into",
        "weft.nn.restack": "stack",
        "weft.tools": "debug",
        "weft.tools.display": "display",
        "weft.train.ema": "EMA",
        "weft.train.metrics": "Metric MultiMetric",
        "weft.train": "metrics optimizer",
        "weft.train.optimizer": "ModelAndOptimizer Optimizer",
        "weft.train.opt_state": "OptArray OptState OptVariable",
        "weft.tools.summary": "tabulate",
        "weft.tools.weights.load": "load_weights",
        "weft.tools.weights.report": "WeightReport WeightRow",
        "weft.tools.weights.save": "save_weights",
        "weft.train.train_state": "TrainState",
        "weft._flax_names.modules.variablelib": "VariableState",
        "weft.bridge": "wrappers",
    },
)
