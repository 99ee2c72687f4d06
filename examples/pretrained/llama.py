"""Llama (Touvron et al., 2023): rotary positions, grouped queries, RMSNorm, SwiGLU."""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx

Config = Mapping[str, Any]

TINY: Config = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
}
SUPPORTED = {"hidden_act": "silu"}


class StretchedRoPE(nnx.Module):
    """Rotary positions of Llama 3: long wavelengths are stretched for longer sequences."""

    def __init__(self, theta: float, size: int, options: Config):
        plain = theta ** (-np.arange(0, size, 2) / size)
        turns = options["original_max_position_embeddings"] * plain / (2 * np.pi)
        low, high = options["low_freq_factor"], options["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        self.frequencies = tuple((plain * (kept + (1 - kept) / options["factor"])).tolist())

    def __call__(self, x: jax.Array, positions: jax.Array | None = None) -> jax.Array:
        positions = jnp.arange(x.shape[-2]) if positions is None else positions
        angles = jnp.outer(positions.astype(jnp.float32), jnp.float32(self.frequencies))
        a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        sin, cos = jnp.sin(angles), jnp.cos(angles)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def make_rope(config: Config, size: int) -> Any:
    """Returns what rotates heads of a size."""
    options = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = options.get("rope_theta") or config.get("rope_theta") or 10000.0
    kind = options.get("rope_type", "default")
    if kind not in ("default", "llama3"):
        raise ValueError(f"rope_type is 'default' or 'llama3' here, found {kind!r}")
    return nnx.RoPE(theta) if kind == "default" else StretchedRoPE(theta, size, options)


class Block(nnx.Module):
    """Attention and a gated perceptron, each on normalised inputs and added to them."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        size, heads = config["hidden_size"], config["num_attention_heads"]
        inner, epsilon = config["intermediate_size"], config["rms_norm_eps"]
        head_size = config.get("head_dim") or size // heads
        self.norm1 = nnx.RMSNorm(size, epsilon=epsilon, rngs=rngs)
        rope = make_rope(config, head_size)
        self.attention = nnx.MultiHeadAttention(
            heads,
            size,
            qkv_features=heads * head_size,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            use_bias=config.get("attention_bias", False),
            attention_fn=functools.partial(nnx.dot_product_attention_with_rope, rope=rope),
            rngs=rngs,
        )
        self.norm2 = nnx.RMSNorm(size, epsilon=epsilon, rngs=rngs)
        linear = functools.partial(nnx.Linear, use_bias=config.get("mlp_bias", False), rngs=rngs)
        self.gate, self.up = linear(size, inner), linear(size, inner)
        self.down = linear(inner, size)

    def __call__(self, x: jax.Array, decode: bool) -> jax.Array:
        x = x + self.attention(self.norm1(x), is_causal=True, decode=decode)
        y = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


class Model(nnx.Module):
    """Tokens of shape (batch, length) to logits of shape (batch, length, vocabulary)."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        self.size, words = config["hidden_size"], config["vocab_size"]
        self.max_length, depth = config["max_position_embeddings"], config["num_hidden_layers"]
        self.tokens = nnx.Embed(words, self.size, param_dtype=config["dtype"], rngs=rngs)
        self.blocks = nnx.Stack(lambda rngs: Block(config, rngs), depth, rngs=rngs)
        self.norm = nnx.RMSNorm(self.size, epsilon=config["rms_norm_eps"], rngs=rngs)
        is_tied = config.get("tie_word_embeddings", False)
        self.head = None if is_tied else nnx.Linear(self.size, words, use_bias=False, rngs=rngs)

    def __call__(self, tokens: jax.Array, decode: bool = False) -> jax.Array:
        x = self.norm(self.blocks(self.tokens(tokens), decode))
        return self.tokens.attend(x) if self.head is None else self.head(x)


def rules(config: Config, names: Collection[str] = ()) -> dict[Any, Any]:
    """Returns which names of a file are which paths."""
    there, here = "model.layers.{i}", "blocks[{i}]"
    attention = {f"{x[0]}_proj": f"attention.{x}" for x in ("query", "key", "value", "out")}
    found: dict[Any, Any] = {
        "model.embed_tokens": "tokens",
        f"{there}.input_layernorm": f"{here}.norm1",
        f"{there}.self_attn.rotary_emb": None,
        **{f"{there}.self_attn.{a}": f"{here}.{b}" for a, b in attention.items()},
        f"{there}.post_attention_layernorm": f"{here}.norm2",
        **{f"{there}.mlp.{x}_proj": f"{here}.{x}" for x in ("gate", "up", "down")},
        "model.norm": "norm",
    }
    is_tied = config.get("tie_word_embeddings", False)
    has_head = not is_tied or "lm_head.weight" in names  # of a tied one the same, or an error
    return found | ({"lm_head": "tokens" if is_tied else "head"} if has_head else {})
