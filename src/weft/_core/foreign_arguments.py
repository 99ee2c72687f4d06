"""What newcomers pass: arguments of Flax Linen, Keras, PyTorch and Equinox, and what to write here.

Python says of a call that does not fit which argument is wrong; here it is said which is right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

_NAMES = {
    "use_bias": "bias with_bias",
    "use_scale": "affine elementwise_affine scale create_scale",
    "strides": "stride",
    "feature_group_count": "groups",
    "kernel_dilation": "dilation dilation_rate",
    "epsilon": "eps",
    "rate": "p prob drop_prob dropout dropout_rate drop_rate",
    "dropout_rate": "dropout attention_dropout",
    "mask": "attn_mask key_padding_mask attention_mask",
    "is_causal": "causal use_causal_mask",
    "rngs": "key rng seed generator",
    "in_features": "in_channels input_size embed_dim d_model input_dim in_size query_size",
    "out_features": "out_channels units filters out_size output_dim features",
    "num_features": "num_channels normalized_shape input_size",
    "hidden_features": "hidden_size units",
    "num_embeddings": "vocab_size input_dim",
    "features": "embedding_dim output_dim embedding_size",
    "num_groups": "groups",
    "num_heads": "nhead heads",
    "kernel_init": "kernel_initializer weight_init w_init",
    "bias_init": "bias_initializer b_init",
    "window_shape": "kernel_size pool_size",
    "output_shape": "output_size",
    "reduction_axes": "axis dim",
    "qkv_features": "key_dim kdim",
    "cell": "rnn_cell",
}
_ADVICE = {
    "training train is_training": "`model.train()` and `model.eval()` switch it for all layers, or "
    "at the call `deterministic=` of Dropout and `use_running_average=` of BatchNorm",
    "inference": "`model.eval()` and `model.train()` switch it for all layers",
    "activation": "apply it to the result, `nnx.relu(layer(x))`",
    "lr learning_rate": "it belongs to Optax, `nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.P"
    "aram)`",
    "params parameters": "the model itself is given, and `wrt=nnx.Param` selects its parameters",
    "grads gradients": "it goes by position, `optimizer.update(model, grads)`",
    "batch_first": "batches come first anyway: inputs have the shape (batch, time, features)",
    "operand operands": "operands go by position, `nnx.cond(pred, f, g, model, x)`",
    "device": "arrays are made on the default device, see `jax.default_device`",
    "padding_mode": "`padding` says it, `padding='CIRCULAR'` or 'REFLECT'",
    "track_running_stats": "leave it out; `use_running_average=False` at the call ignores them",
}
_BY_POSITION = {
    "scan": "what is scanned goes to the function that it returns, `nnx.scan(f)(carry, xs)`",
    "vmap": "options go by name, `nnx.vmap(f, in_axes=(None, 0))`, and arguments to the function "
    "that it returns, `nnx.vmap(f)(model, x)`",
    **dict.fromkeys(
        ("grad", "value_and_grad"),
        "arguments go to the function that it returns, `nnx.grad(f)(model, x)`",
    ),
    **{
        name: f"objects go by name, `nnx.{name}(file, model=model)`" for name in ("save", "restore")
    },
    **dict.fromkeys(
        ("Module.train", "Module.eval"),
        "`model.train()` switches training on, `model.eval()` off, and `model(x)` calls the model",
    ),
}
_RNGS = "give it random streams, `rngs=nnx.Rngs(0)`"
_MOST = 4


def _own_names(table: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for own, foreign in table.items():
        for name in foreign.split():
            found.setdefault(name, []).append(own)
    return found


NAMES = _own_names(_NAMES)
"""By the name of an argument elsewhere, what it may be called here."""

ADVICE = {name: advice for names, advice in _ADVICE.items() for name in names.split()}
"""By the name of an argument that there is not, what to write."""


def explain(
    error: TypeError, f: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Adds to Python's error about a call what to write."""
    try:
        parameters = inspect.signature(f).parameters
    except (TypeError, ValueError):
        return
    advice = _advice(str(error), f, parameters, args, kwargs)
    if advice is not None:
        error.args = (f"{error}: {advice}",)


def _advice(
    message: str, f: Any, parameters: Mapping[str, Any], args: Any, kwargs: Mapping[str, Any]
) -> str | None:
    if "unexpected keyword" in message:
        unknown = next((name for name in kwargs if name not in parameters), "")
        own = [name for name in NAMES.get(unknown, ()) if name in parameters]
        if own:
            return _RNGS if own[0] == "rngs" else f"it is `{own[0]}=` here"
        return ADVICE.get(unknown)
    if "missing" in message:
        if "'rngs'" in message:
            return _RNGS
        if "carry" in parameters:
            return (
                "a cell makes one step, `carry, y = cell(carry, x)`, and `nnx.RNN(cell)(xs)` all "
                "of a sequence"
            )
        return None
    if "positional argument" not in message:
        return None
    if "rngs" in parameters and any(type(x).__name__ == "Rngs" for x in args):
        return "streams go by name, `rngs=rngs`"
    named = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    if f.__qualname__ in _BY_POSITION or not named:
        return _BY_POSITION.get(f.__qualname__)
    some = [*(f"{name}=" for name in named[:_MOST]), *["..."][: len(named) > _MOST]]
    return f"other arguments go by name: {', '.join(some)}"
