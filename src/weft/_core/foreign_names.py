"""What newcomers look for: names of Flax Linen, Keras and PyTorch, and what to write here.

Tables of names in the package and its bridge, and of attributes of objects. Nothing of this is
there: an error that says more than that a name is missing is all that comes of it. A *hint*
is an attribute of a class that raises such an error; it stands behind every attribute of that name,
in the class, in its bases and in the object, and costs nothing where one is found.
"""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Mapping
from typing import Any

_CONV = "nnx.Conv(in_features, out_features, kernel_size=(3, 3), rngs=rngs)"
_CONV_TRANSPOSE = "nnx.ConvTranspose(in_features, out_features, kernel_size=(3, 3), rngs=rngs)"
_NORM = "nnx.BatchNorm(num_features, rngs=rngs)"
_ATTENTION = "nnx.MultiHeadAttention(num_heads, in_features, rngs=rngs)"
_MAX_POOL, _AVG_POOL = "nnx.MaxPool(window_shape=(2, 2))", "nnx.AvgPool(window_shape=(2, 2))"
_LOSS = "optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)"
_LSTM = "nnx.RNN(nnx.LSTMCell(in_features, hidden_features, rngs=rngs))"
_GRU = "nnx.RNN(nnx.GRUCell(in_features, hidden_features, rngs=rngs))"
_OPTIMIZER = "nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)"
_SAVE = (
    "a model is saved by `nnx.save(file, model=model)`, and restored by "
    "`nnx.restore(file, model=model)`"
)
_STEP = "a step is `optimizer.update(model, grads)`"
_PARTS = "make submodules in `__init__`: `self.layer = nnx.Linear(2, 3, rngs=rngs)`"

_FUNCTIONS = {
    "nnx.relu": "ReLU Activation",
    "nnx.gelu": "GELU",
    "nnx.silu": "SiLU",
    "nnx.elu": "ELU",
    "nnx.selu": "SELU",
    "nnx.celu": "CELU",
    "nnx.glu": "GLU",
    "nnx.leaky_relu": "LeakyReLU",
    "nnx.relu6": "ReLU6",
    "nnx.sigmoid": "Sigmoid",
    "nnx.tanh": "Tanh",
    "nnx.softmax": "Softmax",
    "nnx.log_softmax": "LogSoftmax",
    "nnx.softplus": "Softplus",
    "nnx.soft_sign": "Softsign softsign",
    "nnx.hard_tanh": "Hardtanh",
    "nnx.hard_swish": "Hardswish",
    "nnx.hard_sigmoid": "Hardsigmoid",
    "nnx.dot_product_attention": "scaled_dot_product_attention",
}
_CALLS = {
    "nnx.Linear(in_features, out_features, rngs=rngs)": "Dense",
    "nnx.LinearGeneral(in_features, out_features, rngs=rngs)": "DenseGeneral EinsumDense",
    _CONV: "Conv1d Conv2d Conv3d Conv1D Conv2D Conv3D",
    _CONV_TRANSPOSE: "ConvTranspose1d ConvTranspose2d ConvTranspose3d "
    "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
    "nnx.Embed(num_embeddings, features, rngs=rngs)": "Embedding",
    _NORM: "BatchNorm1d BatchNorm2d BatchNorm3d BatchNormalization SyncBatchNorm",
    "nnx.LayerNorm(num_features, rngs=rngs)": "LayerNormalization",
    "nnx.GroupNorm(num_features, rngs=rngs)": "GroupNormalization",
    "nnx.InstanceNorm(num_features, rngs=rngs)": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    _ATTENTION: "MultiheadAttention MultiHeadDotProductAttention SelfAttention",
    "nnx.Dropout(0.1, rngs=rngs)": "Dropout1d Dropout2d Dropout3d SpatialDropout2D",
    _MAX_POOL: "MaxPool1d MaxPool2d MaxPool3d MaxPooling1D MaxPooling2D MaxPooling3D",
    _AVG_POOL: "AvgPool1d AvgPool2d AvgPool3d AveragePooling1D AveragePooling2D AveragePooling3D",
    "nnx.AdaptiveAvgPool((1, 1))": "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d",
    "nnx.AdaptiveMaxPool((1, 1))": "AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d",
    "nnx.GlobalAvgPool()": "GlobalAveragePooling1D GlobalAveragePooling2D",
    "nnx.GlobalMaxPool()": "GlobalMaxPooling1D GlobalMaxPooling2D",
    _LSTM: "LSTM",
    _GRU: "GRU",
    "nnx.SimpleCell(in_features, hidden_features, rngs=rngs)": "RNNCell SimpleRNN SimpleRNNCell",
    "nnx.List([...])": "ModuleList ParameterList",
    "nnx.Dict(a=...)": "ModuleDict ParameterDict",
    "nnx.Module": "Layer Model",
    "nnx.Param(array)": "Parameter",
    "nnx.Variable(array)": "Buffer",
    "nnx.Rngs(0)": "PRNGKey make_rng manual_seed",
    "nnx.remat(f)": "checkpoint",
    "nnx.nn": "functional F layers",
    "nnx.initializers": "init",
    "nnx.RMSNorm(num_features, rngs=rngs)": "RMSNormalization",
    "nnx.Sequential(nnx.Linear(2, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 1, rngs=rngs))": "MLP",
    "nnx.jit(f)": "filter_jit",
    "nnx.grad(f)": "filter_grad",
    "nnx.value_and_grad(f)": "filter_value_and_grad",
    "nnx.vmap(f)": "filter_vmap",
    "nnx.split(model, nnx.Param, ...)": "partition",
    "nnx.merge(graphdef, state)": "combine",
    "jnp.array(x)": "tensor Tensor from_numpy",
}
_ADVICE = {
    _PARTS: "compact setup nowrap",
    _SAVE: "save_model load_model tree_serialise_leaves tree_deserialise_leaves",
    _STEP: "apply_updates",
    "layers are told their sizes when they are made, `nnx.Linear(in_features, out_features, "
    "rngs=rngs)`": "Input InputLayer",
    "functions are layers as they are, `nnx.Sequential(layer, f)`": "Lambda",
    "attributes can be set, `net.head = nnx.Linear(2, 3, rngs=rngs)`": "tree_at",
    "functions, methods and models are compiled alike, `nnx.jit(model)`": "compile",
    "gradients are clipped by Optax, `optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-"
    "3))`": "clip_grad_norm_",
    "schedules are functions of Optax, `optax.adam(optax.cosine_decay_schedule(1e-3, 1000))`": (
        "lr_scheduler"
    ),
    f"losses are functions of Optax: `{_LOSS}`": "CrossEntropyLoss NLLLoss cross_entropy",
    "losses are functions of Optax: `optax.losses.squared_error(predictions, targets)`": "MSELoss "
    "mse_loss",
    "losses are functions of Optax: `optax.losses.sigmoid_binary_cross_entropy(logits, labels)`": (
        "BCELoss BCEWithLogitsLoss"
    ),
    f"optimizers are made of Optax: `{_OPTIMIZER}`": "optim optimizers Adam AdamW SGD",
    "gradients are taken where they are asked for, `nnx.grad(loss_fn)(model)`; "
    "`jax.lax.stop_gradient(x)` takes none": "no_grad inference_mode",
}

PUBLIC: dict[str, str] = {
    name: advice
    for advice, names in [
        *((f"it is `{code}` here", names) for code, names in {**_FUNCTIONS, **_CALLS}.items()),
        *_ADVICE.items(),
    ]
    for name in names.split()
}
"""Names that the package does not have, and what to write."""

_ONE_KIND = (
    "there is one kind of Module, `nnx.Module`, which makes its parts in `__init__`; "
    "`nnx.bridge.to_linen(Class, *args)` gives it `init` and `apply`"
)
_VALUES = "take the model apart, `parts = nnx.split(model)`, and call it: `nnx.call(parts)(x)`"
BRIDGE: dict[str, str] = {
    **dict.fromkeys(("Module", "compact", "Scope", "AttrPriority"), _ONE_KIND),
    **dict.fromkeys(("functional", "Functional"), _VALUES),
}
"""Names that `nnx.bridge` does not have, and what to write."""

_PARAMETERS = "parameters are `nnx.state(model, nnx.Param)`"
_ATTRIBUTE = "a Variable is an attribute"
_WRITE = "write values into it by `nnx.update(model, state)`"
_PURE = "take its values by `nnx.to_pure_dict(nnx.state(model))`"
_DEVICE = "`nnx.update(model, jax.device_put(nnx.state(model), device))` moves its arrays"
_SELECT = "what is trained is chosen by filters, `nnx.Optimizer(model, tx, wrt=filter)`"
_DTYPE = "the dtype is chosen when it is made: `nnx.Linear(2, 3, dtype=jnp.bfloat16, rngs=rngs)`"
_TRAIN = "training is a function of one's own, made fast by `@nnx.jit`"
_MEMBERS = {
    f"{_PARAMETERS}, also with their paths: `nnx.to_flat_state`": "named_parameters named_buffers",
    _PARAMETERS: "parameters params trainable_variables trainable_weights weights get_weights",
    "its Variables are `nnx.state(model)`": "buffers variables",
    _PURE: "state_dict",
    _WRITE: "load_state_dict set_weights load_weights",
    "define `__call__`, and call it: `model(x)`": "forward",
    "a model is made with its parameters, `Model(rngs=nnx.Rngs(0))`, and called: `model(x)`": (
        "init apply bind init_with_output"
    ),
    _DEVICE: "to cuda cpu",
    _DTYPE: "half bfloat16",
    _SELECT: "requires_grad_ requires_grad",
    "gradients are values: `grads = nnx.grad(loss_fn)(model)`": "zero_grad",
    _TRAIN: "fit train_step",
    "call it: `model(x)`, after `model.eval()`": "predict evaluate",
    "a table of it is `nnx.tabulate(model, x)`": "summary tabulate",
    "`model.iter_modules()` yields paths and Modules": "modules named_modules submodules",
    "`model.iter_children()` yields names and Modules": "children named_children",
    "`model.train()` and `model.eval()` switch its layers; these have `deterministic` or "
    "`use_running_average`": "training",
    "`sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))` is their number": (
        "count_params num_params num_parameters"
    ),
    "parameters are there from the start; there is no first call that makes them": (
        "is_initializing build lazy_init"
    ),
    "a Module is an attribute: `self.layer = nnx.Linear(2, 3, rngs=rngs)`": (
        "add_module register_module"
    ),
    "a Variable is an attribute, read by `self.scale[...]`": "get_variable has_variable",
    _SAVE: "save save_weights",
    "compile what is called, `nnx.jit(model)`, or a function, `@nnx.jit`": "compile",
    f"{_ATTRIBUTE}: `self.scale = nnx.Param(array)`": "param register_parameter",
    f"{_ATTRIBUTE}: `self.count = nnx.Variable(array)`": "variable register_buffer put_variable",
    "streams are handed to `__init__`: `rngs.dropout()` draws a key": "make_rng",
    "layers call it `kernel`, of shape (inputs, outputs), and norms `scale`": "weight",
}
MODULE: dict[str, str] = {n: advice for advice, names in _MEMBERS.items() for n in names.split()}
"""Attributes that Modules do not have, and what to write."""

_GRADIENTS = "gradients are values: `grads = nnx.grad(loss_fn)(model)`"
VARIABLE: dict[str, str] = {
    "grad": _GRADIENTS,
    "backward": _GRADIENTS,
    "requires_grad": _SELECT,
    "requires_grad_": _SELECT,
    "data": "its value is `v[...]`",
    "numpy": "`np.asarray(v)` is its value as an array of NumPy",
    "detach": "`jax.lax.stop_gradient(v[...])` is its value without a gradient",
    "to": "`jax.device_put(v[...], device)` is its value elsewhere",
    "assign": "write its value by `v[...] = x`",
    "numel": "the number of its elements is `v.size`",
    "unsqueeze": "`jnp.expand_dims(v[...], 0)` has one axis more",
    "permute": "axes are put in another order by `v.transpose(1, 0)`",
    "expand": "`jnp.broadcast_to(v[...], shape)` has another shape",
    "clone": "`v.copy()` is another Variable with its value",
    **dict.fromkeys(("cpu", "cuda"), "`jax.device_put(v[...], device)` is its value elsewhere"),
    **dict.fromkeys(
        ("float", "double", "half", "long"), "`v.astype(jnp.float32)` is its value in another dtype"
    ),
    **dict.fromkeys(
        ("add_", "sub_", "mul_", "copy_", "fill_", "zero_", "clamp_", "assign_add", "assign_sub"),
        "write its value by `v[...] = x`, `v[...] += x`",
    ),
    "unbox": "its value is `v[...]`",
}
"""Attributes that Variables do not have, and what to write."""

_MODEL = (
    "an Optimizer does not keep its model: pass it, `optimizer.update(model, grads)`, or use "
    "`nnx.ModelAndOptimizer(model, tx)`"
)
OPTIMIZER: dict[str, str] = {
    "zero_grad": _GRADIENTS,
    "apply_gradients": _STEP,
    "minimize": "a step is `optimizer.update(model, nnx.grad(loss_fn)(model))`",
    "state_dict": "take its values by `nnx.to_pure_dict(nnx.state(optimizer))`",
    "load_state_dict": "write values into it by `nnx.update(optimizer, state)`",
    "param_groups": _SELECT,
    "init": "it is made with its state: `nnx.Optimizer(model, tx, wrt=nnx.Param)`",
    **dict.fromkeys(("model", "target"), _MODEL),
}
"""Attributes that optimizers do not have, and what to write."""

_APPEND = "its layers are a list: `sequential.layers.append(layer)`"
SEQUENTIAL: dict[str, str] = dict.fromkeys(("append", "add", "extend", "insert", "pop"), _APPEND)
"""Attributes that a Sequential does not have, and what to write."""


def missing_name(
    module: str, name: str, table: Mapping[str, str] = PUBLIC
) -> AttributeError | ImportError:
    """Returns the error for a name that a module of the package does not have.

    To be called by the module's `__getattr__`. Of an AttributeError a line `from weft import name`
    shows nothing.
    """
    advice = f": {table[name]}" if name in table else ""
    if advice and _imports_a_name(sys._getframe(2)):
        return ImportError(f"cannot import name {name!r} from {module!r}{advice}", name=name)
    text = f"module {module!r} has no attribute {name!r}{advice}"
    if advice:
        return AttributeError(text)
    # By these Python finds a name that is nearly the same.
    return AttributeError(text, name=name, obj=sys.modules[module])


def _imports_a_name(frame: types.FrameType) -> bool:
    """Returns whether a frame is in a line `from module import name`."""
    return frame.f_code.co_code[frame.f_lasti] == dis.opmap["IMPORT_FROM"]


class Hint:
    """An attribute that is not there."""

    __slots__ = ("_advice", "_name", "_owner")

    def __init__(self, owner: type, name: str, advice: str):
        self._owner = owner
        self._name = name
        self._advice = advice

    def __get__(self, obj: Any, kind: type) -> Any:
        try:
            try:  # what comes behind the owner in the order of bases
                return getattr(super(self._owner, kind if obj is None else obj), self._name)
            except AttributeError:
                named = f"{kind.__name__!r}"
                what = f"type object {named}" if obj is None else f"{named} object"
                raise AttributeError(
                    f"{what} has no attribute {self._name!r}: {self._advice}",
                    name=self._name,
                    obj=kind if obj is None else obj,
                ) from None
        except AttributeError as error:
            from weft._core.tracebacks import trim

            trim(error)
            raise

    def __repr__(self) -> str:
        return f"<not here: {self._advice}>"


def give_hints(owner: type, table: Mapping[str, str]) -> None:
    """Puts hints into a class for the names of a table that it lacks."""
    for name, advice in table.items():
        if not hasattr(owner, name):
            setattr(owner, name, Hint(owner, name, advice))


def without_hints(kind: type, names: list[str]) -> list[str]:
    """Leaves out the names of hints."""
    is_hint = {name for base in kind.__mro__ for name, x in vars(base).items() if type(x) is Hint}
    return [name for name in names if name not in is_hint]
