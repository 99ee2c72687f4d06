"""MultiHeadAttention and the functions of attention."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.cases import Case, Function, Layer, quick_init

X = (2, 5, 8)
Q, K, V = (2, 5, 4, 3), (2, 6, 4, 3), (2, 6, 4, 3)
GROUPED = (2, 6, 2, 3)
MASK = np.random.default_rng(3).random((2, 1, 5, 6)) < 0.6
BIAS = np.random.default_rng(4).normal(size=(2, 4, 5, 6)).astype(np.float32)
DROPOUT = {"dropout_rng": jax.random.key(5), "dropout_rate": 0.3}
KERNEL = {"kernel_init": quick_init, "bias_init": quick_init}

OPTIONS = {
    "plain": {},
    "mask": {"mask": MASK},
    "mask of numbers and bias": {"mask": MASK.astype(np.float32), "bias": BIAS},
    "causal": {"is_causal": True},
    "causal with a mask": {"is_causal": True, "mask": MASK},
    "dropout": {**DROPOUT, "mask": MASK},
    "dropout of each, in bfloat16": {
        **DROPOUT,
        "broadcast_dropout": False,
        "dtype": jnp.bfloat16,
    },
    "no dropout": {**DROPOUT, "deterministic": True, "bias": BIAS, "is_causal": True},
    "precision": {"precision": "highest"},
}


def mha(**options):
    """Attention with four heads of two features."""
    return Layer("MultiHeadAttention", 4, 8, **{**KERNEL, "decode": False, **options})


def weights(**options):
    """The function that returns the attention weights."""

    def make(nnx, rngs):
        return lambda q, k: nnx.nn.attention.dot_product_attention_weights(q, k, **options)

    return make


def decoding(**options):
    """A layer that has a cache for three positions, at position 0."""

    def make(nnx, rngs):
        layer = mha(decode=True, **options)(nnx, rngs)
        layer.init_cache((2, 3, 8))
        return layer

    return make


def with_rope(**options):
    """Rotary embedding, which the peer has from 0.12.12 on."""

    def make(nnx, rngs):
        if not hasattr(nnx, "RoPE"):
            pytest.skip("this flax has no RoPE")
        rope = nnx.RoPE(**options)

        def call(x):
            with warnings.catch_warnings():  # the peer reads its table by a deprecated name
                warnings.simplefilter("ignore", DeprecationWarning)
                return rope(x), nnx.dot_product_attention_with_rope(x, x, x, rope=rope)

        return call

    return make


CASES = [
    *(
        Case(f"attention, {name}", Function("dot_product_attention", **options), (Q, K, V))
        for name, options in OPTIONS.items()
    ),
    *(
        Case(
            f"grouped, {name}",
            Function("dot_product_attention", **OPTIONS[name]),
            (Q, GROUPED, GROUPED),
        )
        for name in ("causal with a mask", "dropout of each, in bfloat16", "no dropout")
    ),
    *(
        Case(f"weights, {name}", weights(**OPTIONS[name]), (Q, keys))
        for name, keys in {"plain": K, "mask of numbers and bias": GROUPED, "dropout": K}.items()
    ),
    Case("without batch", Function("dot_product_attention"), (Q[1:], K[1:], V[1:])),
    Case(
        "two batch axes",
        Function("dot_product_attention", mask=MASK[None]),
        ((1, *Q), (1, *K), (1, *V)),
    ),
    Case("MultiHeadAttention", mha(), (X,)),
    Case(
        "MultiHeadAttention initializers",
        Layer("MultiHeadAttention", 2, 4, decode=False),
        ((3, 4),),
    ),
    Case("MultiHeadAttention causal", mha(), (X,), call={"is_causal": True}),
    Case("MultiHeadAttention mask", mha(), (X,), call={"mask": MASK[..., :5]}),
    Case("MultiHeadAttention qk-norm", mha(normalize_qk=True, num_kv_heads=2), (X,)),
    Case("MultiHeadAttention one key head", mha(num_kv_heads=1, use_bias=False), (X,)),
    Case(
        "MultiHeadAttention sizes",
        mha(qkv_features=12, out_features=5, out_kernel_init=quick_init, out_bias_init=quick_init),
        (X,),
    ),
    Case("MultiHeadAttention cross", mha(in_kv_features=3), (X, (2, 6, 3))),
    Case("MultiHeadAttention cross with values", mha(in_kv_features=3), (X, (2, 6, 3), (2, 6, 3))),
    Case("MultiHeadAttention dropout", mha(dropout_rate=0.3, deterministic=False), (X,)),
    Case(
        "MultiHeadAttention dropout of each, in bfloat16",
        mha(dropout_rate=0.3, broadcast_dropout=False, num_kv_heads=2, dtype=jnp.bfloat16),
        (X,),
        call={"deterministic": False},
    ),
    Case("MultiHeadAttention no dropout", mha(dropout_rate=0.3, deterministic=True), (X,)),
    Case("decode", decoding(), ((2, 1, 8),)),
    Case("decode grouped, qk-norm", decoding(num_kv_heads=2, normalize_qk=True), ((2, 1, 8),)),
    Case(
        "decode with a mask",
        decoding(),
        ((2, 1, 8),),
        call={"mask": np.array([True, False, True]).reshape(1, 1, 1, 3)},
    ),
    Case("rope", with_rope(), ((2, 5, 3, 4),)),
    Case(
        "rope with a table",
        with_rope(theta=100.0, embedding_size=4, max_seq_len=7),
        ((2, 5, 3, 4),),
    ),
    Case("causal mask", Function("make_causal_mask", extra_batch_dims=1), ((2, 3),)),
    Case(
        "attention mask",
        Function("make_attention_mask", pairwise_fn=jnp.greater, extra_batch_dims=2, dtype=bool),
        ((2, 3), (2, 4)),
    ),
    Case("combined masks", Function("combine_masks"), (MASK, MASK[::-1])),
]
