"""ViT (Dosovitskiy et al., 2020): an image is a sequence of patches."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import weft as nnx

Config = Mapping[str, Any]

TINY: Config = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_act": "gelu",
    "hidden_size": 32,
    "id2label": {str(i): f"LABEL_{i}" for i in range(5)},
    "image_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "num_attention_heads": 4,
    "num_channels": 3,
    "num_hidden_layers": 3,
    "patch_size": 8,
    "qkv_bias": True,
}
SUPPORTED = {"hidden_act": "gelu", "qkv_bias": True}


class Block(nnx.Module):
    """Attention and a two-layer perceptron, each on normalised inputs and added to them."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        size, inner = config["hidden_size"], config["intermediate_size"]
        epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]
        self.norm1 = nnx.LayerNorm(size, epsilon=epsilon, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, size, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(size, epsilon=epsilon, rngs=rngs)
        self.up = nnx.Linear(size, inner, rngs=rngs)
        self.down = nnx.Linear(inner, size, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))


class Model(nnx.Module):
    """Images of shape (batch, height, width, channels), from -1 to 1, to logits of classes."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        size, patch = config["hidden_size"], config["patch_size"]
        count = (config["image_size"] // patch) ** 2
        self.image_size = config["image_size"]
        self.patches = nnx.Conv(
            config["num_channels"],
            size,
            (patch, patch),
            strides=patch,
            padding="VALID",
            rngs=rngs,
        )
        normal = nnx.initializers.normal(0.02)
        self.summary = nnx.Param(normal(rngs.params(), (1, 1, size), jnp.float32))
        self.positions = nnx.Param(normal(rngs.params(), (1, 1 + count, size), jnp.float32))
        depth = config["num_hidden_layers"]
        self.blocks = nnx.Stack(lambda rngs: Block(config, rngs), depth, rngs=rngs)
        self.norm = nnx.LayerNorm(size, epsilon=config["layer_norm_eps"], rngs=rngs)
        classes = len(config.get("id2label") or "01")  # what the configuration leaves out is 2
        self.head = nnx.Linear(size, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        patches = self.patches(images)
        x = patches.reshape(len(images), -1, patches.shape[-1])
        summary = jnp.broadcast_to(self.summary[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([summary, x], axis=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def rules(config: Config, names: Collection[str] = ()) -> dict[Any, Any]:
    """Returns which names of a file are which paths."""
    there, here = "vit.encoder.layer.{i}", "blocks[{i}]"
    parts = ("query", "key", "value")
    return {
        "vit.embeddings.cls_token": "summary",
        "vit.embeddings.position_embeddings": "positions",
        "vit.embeddings.patch_embeddings.projection": "patches",
        f"{there}.layernorm_before": f"{here}.norm1",
        **{f"{there}.attention.attention.{x}": f"{here}.attention.{x}" for x in parts},
        f"{there}.attention.output.dense": f"{here}.attention.out",
        f"{there}.layernorm_after": f"{here}.norm2",
        f"{there}.intermediate.dense": f"{here}.up",
        f"{there}.output.dense": f"{here}.down",
        "vit.layernorm": "norm",
        "classifier": "head",
    }
