"""GPT-2 (Radford et al., 2019): learned positions, pre-norm blocks, tied embedding."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import weft as nnx

Config = Mapping[str, Any]

TINY: Config = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "n_embd": 32,
    "n_head": 4,
    "n_layer": 3,
    "n_positions": 64,
    "vocab_size": 96,
}
SUPPORTED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}


class Block(nnx.Module):
    """Attention and a two-layer perceptron, each on normalised inputs and added to them."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        size, epsilon = config["n_embd"], config["layer_norm_epsilon"]
        inner = config.get("n_inner") or 4 * size
        self.norm1 = nnx.LayerNorm(size, epsilon=epsilon, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(config["n_head"], size, rngs=rngs)
        self.norm2 = nnx.LayerNorm(size, epsilon=epsilon, rngs=rngs)
        self.up = nnx.Linear(size, inner, rngs=rngs)
        self.down = nnx.Linear(inner, size, rngs=rngs)

    def __call__(self, x: jax.Array, decode: bool) -> jax.Array:
        x = x + self.attention(self.norm1(x), is_causal=True, decode=decode)
        return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=True))


class Model(nnx.Module):
    """Tokens of shape (batch, length) to logits of shape (batch, length, vocabulary)."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.size = config["n_embd"]
        self.max_length = config["n_positions"]
        dtype = config["dtype"]  # the other layers compute in that of what they are given
        self.tokens = nnx.Embed(config["vocab_size"], self.size, param_dtype=dtype, rngs=rngs)
        self.positions = nnx.Embed(self.max_length, self.size, param_dtype=dtype, rngs=rngs)
        self.blocks = nnx.Stack(lambda rngs: Block(config, rngs), config["n_layer"], rngs=rngs)
        self.norm = nnx.LayerNorm(self.size, epsilon=config["layer_norm_epsilon"], rngs=rngs)

    def __call__(self, tokens: jax.Array, decode: bool = False) -> jax.Array:
        seen = self.blocks.stacked.attention.cache_index[0] if decode else 0
        x = self.tokens(tokens) + self.positions(seen + jnp.arange(tokens.shape[-1]))
        return self.tokens.attend(self.norm(self.blocks(x, decode)))


def rules(config: Config, names: Collection[str] = ("transformer.",)) -> dict[Any, Any]:
    """Returns which names of a file are which paths; GPT-2 keeps its kernels as (in, out)."""
    start = "transformer." if any(name.startswith("transformer.") for name in names) else ""
    there, here = f"{start}h.{{i}}", "blocks[{i}]"
    parts = [f"{here}.attention.{part}" for part in ("query", "key", "value")]
    found: dict[Any, Any] = {
        f"{start}wte": "tokens",
        f"{start}wpe": "positions",
        f"{there}.ln_1": f"{here}.norm1",
        f"{there}.attn.c_attn": nnx.Into(parts, axes=(1, 0)),
        f"{there}.attn.c_proj": nnx.Into(f"{here}.attention.out", axes=(1, 0)),
        f"{there}.attn.bias": None,
        f"{there}.attn.masked_bias": None,
        f"{there}.ln_2": f"{here}.norm2",
        f"{there}.mlp.c_fc": nnx.Into(f"{here}.up", axes=(1, 0)),
        f"{there}.mlp.c_proj": nnx.Into(f"{here}.down", axes=(1, 0)),
        f"{start}ln_f": "norm",
    }
    if "lm_head.weight" in names:  # the same once more, or an error
        found["lm_head"] = "tokens"
    return found
