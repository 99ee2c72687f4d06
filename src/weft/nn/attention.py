"""Multi-head attention as a layer, and in one place the functions it is made of."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from weft._module import Module, data
from weft._object.kinds import bound_objects
from weft._rng import Rngs, RngStream
from weft._variable.types import Cache
from weft._variable.variable import Variable
from weft.nn import initializers
from weft.nn.attention_masks import combine_masks as combine_masks
from weft.nn.attention_masks import make_attention_mask as make_attention_mask
from weft.nn.attention_masks import make_causal_mask as make_causal_mask
from weft.nn.dot_product import dot_product_attention as dot_product_attention
from weft.nn.dot_product import dot_product_attention_weights as dot_product_attention_weights
from weft.nn.dropout import known_rate
from weft.nn.dtypes import Dtype, PromoteDtype, as_array, promote_dtype
from weft.nn.initializers import Initializer
from weft.nn.kv_cache import Step, combine_step_mask, extend_cache
from weft.nn.layer_options import choose_option
from weft.nn.layer_rngs import draw_key, keep_stream
from weft.nn.linear import LinearGeneral
from weft.nn.nnx_names import names_for
from weft.nn.normalization import LayerNorm
from weft.nn.parameters import NO_METADATA, check_sizes
from weft.nn.rope import dot_product_attention_with_rope as dot_product_attention_with_rope
from weft.nn.torch_weights import TorchWeights

Shape = tuple[int, ...]
__getattr__ = names_for(__name__)


class MultiHeadAttention(Module):
    """Attention of several heads (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762).

    Projects its inputs to queries, keys and values of `num_heads` heads, lets `attention_fn` mix
    the values, and projects the heads to `out_features`.

    To decode step by step, call `init_cache`, then the layer with `decode=True` and the next
    elements of the sequence, one or several at a time. The results are those of one call on the
    whole sequence with `is_causal=True`.

    Args:
      num_heads: how many heads there are.
      in_features: the size of the queries' input.
      qkv_features: the size of all heads together; None for `in_features`.
      out_features: the size of the result; None for `in_features`.
      num_kv_heads: how many heads keys and values have, for grouped-query attention (Ainslie et
        al., 2023, https://arxiv.org/abs/2305.13245); None for `num_heads`.
      in_kv_features: the size of the keys' and values' inputs; None for `in_features`.
      dtype: the computation dtype; None for what inputs and parameters promote to.
      param_dtype: the dtype of the parameters.
      broadcast_dropout: whether all batches and heads drop the same attention weights.
      dropout_rate: the probability of dropping an attention weight; it may be traced, and set anew,
        `layer.dropout_rate = rate`.
      deterministic: whether to drop nothing; None to demand it at the call, if there is dropout.
      precision: the precision of the products.
      kernel_init: initializer of the kernels.
      out_kernel_init: initializer of the output's kernel; None for `kernel_init`.
      bias_init: initializer of the biases.
      out_bias_init: initializer of the output's bias; None for `bias_init`.
      use_bias: whether the projections have biases.
      attention_fn: what mixes the values, called as `dot_product_attention` with the keywords
        mask, dropout_rng, dropout_rate, broadcast_dropout, deterministic, dtype, precision,
        module and is_causal, and with input_positions if these are known and it takes them.
      decode: whether to use the cache; None to demand it at the call.
      normalize_qk: whether to normalise queries and keys with a `LayerNorm` without bias (Dehghani
        et al., 2023, https://arxiv.org/abs/2302.05442).
      qkv_promote_dtype: how the inputs of the query, key and value projections are cast.
      out_promote_dtype: how the input of the output projection is cast.
      ln_promote_dtype: how the inputs of the normalisation of queries and keys are cast.
      qkv_dot_general: the product of the query, key and value projections.
      out_dot_general: the product of the output projection.
      qkv_dot_general_cls: makes the product of the query, key and value projections.
      out_dot_general_cls: makes the product of the output projection.
      rngs: draws the parameters of query, key, value, normalisation and output from `params`, and
        the layer's own stream from `dropout` if there is dropout.
      keep_rngs: whether to keep a stream for dropout; False to give `rngs` at each call.
      kernel_metadata: metadata of the kernels.
      out_kernel_metadata: metadata of the output's kernel.
      bias_metadata: metadata of the biases.
      out_bias_metadata: metadata of the output's bias.
      query_ln_scale_metadata: metadata of the scale that normalises queries.
      key_ln_scale_metadata: metadata of the scale that normalises keys.

    Attributes:
      query: `LinearGeneral` from `in_features` to (num_heads, head_dim).
      key: `LinearGeneral` from `in_kv_features` to (num_kv_heads, head_dim).
      value: `LinearGeneral` from `in_kv_features` to (num_kv_heads, head_dim).
      out: `LinearGeneral` from (num_heads, head_dim) to `out_features`.
      query_ln: `LayerNorm` over head_dim, or None.
      key_ln: `LayerNorm` over head_dim, or None.
      cached_key: `Cache` of keys before rotation, or None.
      cached_value: `Cache` of values, or None.
      cache_index: `Cache` with the number of positions seen, int32, or None.
      attention_parts: the objects that `attention_fn` is bound to, such as a `RoPE`, if it is.

    Raises:
      ValueError: if `num_heads` does not divide `qkv_features`, or `num_kv_heads` not `num_heads`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
      >>> x = jnp.ones((1, 3, 8))
      >>> layer(x, is_causal=True).shape
      (1, 3, 8)
      >>> layer.init_cache(x.shape)
      >>> layer(x[:, :1], decode=True).shape
      (1, 1, 8)
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        qkv_features: int | None = None,
        out_features: int | None = None,
        num_kv_heads: int | None = None,
        in_kv_features: int | None = None,
        *,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        broadcast_dropout: bool = True,
        dropout_rate: float | jax.Array | Variable = 0.0,
        deterministic: bool | None = None,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = initializers.default_kernel_init,
        out_kernel_init: Initializer | None = None,
        bias_init: Initializer = initializers.default_bias_init,
        out_bias_init: Initializer | None = None,
        use_bias: bool = True,
        attention_fn: Callable[..., jax.Array] = dot_product_attention,
        decode: bool | None = None,
        normalize_qk: bool = False,
        qkv_promote_dtype: PromoteDtype = promote_dtype,
        out_promote_dtype: PromoteDtype = promote_dtype,
        ln_promote_dtype: PromoteDtype = promote_dtype,
        qkv_dot_general: Callable[..., jax.Array] | None = None,
        out_dot_general: Callable[..., jax.Array] | None = None,
        qkv_dot_general_cls: Any = None,
        out_dot_general_cls: Any = None,
        rngs: Rngs,
        keep_rngs: bool = True,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        out_kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
        out_bias_metadata: Mapping[str, Any] = NO_METADATA,
        query_ln_scale_metadata: Mapping[str, Any] = NO_METADATA,
        key_ln_scale_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        self.num_heads = num_heads
        self.in_features = in_features
        self.qkv_features = in_features if qkv_features is None else qkv_features
        self.out_features = in_features if out_features is None else out_features
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.in_kv_features = in_features if in_kv_features is None else in_kv_features
        check_sizes(
            self,
            num_heads=num_heads,
            in_features=in_features,
            qkv_features=self.qkv_features,
            out_features=self.out_features,
            num_kv_heads=self.num_kv_heads,
            in_kv_features=self.in_kv_features,
        )
        _check_heads(self.qkv_features, num_heads, self.num_kv_heads)
        self.head_dim = self.qkv_features // num_heads
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.broadcast_dropout = broadcast_dropout
        self.dropout_rate = dropout_rate
        self.deterministic = deterministic
        self.precision = precision
        self.use_bias = use_bias
        self.attention_fn = attention_fn
        parts = bound_objects(attention_fn)
        if parts:  # a partial only refers to objects, such as a RoPE
            self.attention_parts = parts
        self.decode = decode
        self.normalize_qk = normalize_qk
        self.qkv_promote_dtype = qkv_promote_dtype
        self.out_promote_dtype = out_promote_dtype
        self.ln_promote_dtype = ln_promote_dtype
        self.qkv_dot_general = qkv_dot_general
        self.out_dot_general = out_dot_general
        self.qkv_dot_general_cls = qkv_dot_general_cls
        self.out_dot_general_cls = out_dot_general_cls

        def project(features: int, heads: int) -> LinearGeneral:
            return LinearGeneral(
                features,
                (heads, self.head_dim),
                dtype=dtype,
                param_dtype=param_dtype,
                kernel_init=kernel_init,
                bias_init=bias_init,
                use_bias=use_bias,
                precision=precision,
                promote_dtype=qkv_promote_dtype,
                dot_general=qkv_dot_general,
                dot_general_cls=qkv_dot_general_cls,
                rngs=rngs,
                kernel_metadata=kernel_metadata,
                bias_metadata=bias_metadata,
            )

        def normalize(scale_metadata: Mapping[str, Any]) -> LayerNorm | None:
            if not normalize_qk:
                return None
            return LayerNorm(
                self.head_dim,
                use_bias=False,
                dtype=dtype,
                param_dtype=param_dtype,
                promote_dtype=ln_promote_dtype,
                rngs=rngs,
                scale_metadata=scale_metadata,
            )

        self.query = project(in_features, num_heads)
        self.key = project(self.in_kv_features, self.num_kv_heads)
        self.value = project(self.in_kv_features, self.num_kv_heads)
        self.query_ln = normalize(query_ln_scale_metadata)
        self.key_ln = normalize(key_ln_scale_metadata)
        self.out = LinearGeneral(
            (num_heads, self.head_dim),
            self.out_features,
            axis=(-2, -1),
            dtype=dtype,
            param_dtype=param_dtype,
            kernel_init=kernel_init if out_kernel_init is None else out_kernel_init,
            bias_init=bias_init if out_bias_init is None else out_bias_init,
            use_bias=use_bias,
            precision=precision,
            promote_dtype=out_promote_dtype,
            dot_general=out_dot_general,
            dot_general_cls=out_dot_general_cls,
            rngs=rngs,
            kernel_metadata=out_kernel_metadata,
            bias_metadata=out_bias_metadata,
        )
        keeps = keep_rngs and known_rate(dropout_rate) != 0
        self.rngs = keep_stream(rngs if keeps else None, "dropout", "MultiHeadAttention")
        self.cached_key: Cache[jax.Array] | None = data(None)
        self.cached_value: Cache[jax.Array] | None = data(None)
        self.cache_index: Cache[jax.Array] | None = data(None)

    @property
    def torch_weights(self) -> TorchWeights:
        """What `nnx.load_weights` takes: the weights of a `torch.nn.MultiheadAttention`."""
        parts = ("query", "key", "value")
        out = {"out_proj.weight": "out.kernel", "out_proj.bias": "out.bias"}
        biases = {"in_proj_bias": tuple([f"{part}.bias" for part in parts])}
        if self.in_kv_features == self.in_features:
            return {"in_proj_weight": tuple([f"{part}.kernel" for part in parts]), **biases, **out}
        kernels = {f"{part[0]}_proj_weight": f"{part}.kernel" for part in parts}
        return {**kernels, **biases, **out}

    def __call__(
        self,
        inputs_q: jax.Array,
        inputs_k: jax.Array | None = None,
        inputs_v: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        deterministic: bool | None = None,
        rngs: Rngs | RngStream | jax.Array | None = None,
        sow_weights: bool = False,
        decode: bool | None = None,
        is_causal: bool = False,
        out_sharding: Any = None,
        qkv_sharding: Any = None,
        input_positions: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the attention of the queries to the keys.

        Args:
          inputs_q: what queries are made of, of shape (batch..., queries, in_features).
          inputs_k: what keys are made of, of shape (batch..., keys, in_kv_features); None for
            `inputs_q`.
          inputs_v: what values are made of, likewise; None for `inputs_k`.
          mask: which query may see which key, nonzero for yes; it broadcasts to
            (batch..., num_heads, queries, keys). One that is to be added (0 and minus infinity) is
            an error, or read as it is meant where it is traced. While decoding there is a key for
            each position of the cache; those not yet filled are masked anyway.
          deterministic: overrides the layer's.
          rngs: what to draw from for dropout, in place of the layer's stream.
          sow_weights: whether to sow the attention weights, as `attention_weights`.
          decode: overrides the layer's.
          is_causal: whether query i may see the keys up to i only. Decoding is always so.
          out_sharding: how to shard the result, under a mesh of explicit axes.
          qkv_sharding: how to shard queries, keys and values.
          input_positions: positions of the queries, for an `attention_fn` that takes them; while
            decoding, None for the positions that the cache is at.

        Returns:
          An array of shape (batch..., queries, out_features).

        Raises:
          ValueError: if shapes do not fit, `decode` or `deterministic` is not known, there is no
            stream for dropout, or the cache is missing, full or of another shape. That the cache
            is full cannot be seen where its index is traced, as under jit.
        """
        if inputs_k is None and inputs_v is not None:
            raise ValueError(
                "MultiHeadAttention got inputs_v without inputs_k: to use one input as both, pass "
                "it as inputs_k, `layer(q, kv)`"
            )
        inputs_q, inputs_k, inputs_v, mask = map(as_array, (inputs_q, inputs_k, inputs_v, mask))
        inputs_k = inputs_q if inputs_k is None else inputs_k
        inputs_v = inputs_k if inputs_v is None else inputs_v
        _check_input("inputs_q", inputs_q, "in_features", self.in_features)
        _check_input("inputs_k", inputs_k, "in_kv_features", self.in_kv_features)
        _check_input("inputs_v", inputs_v, "in_kv_features", self.in_kv_features)
        decode = choose_option(self, "decode", decode)

        query = self.query(inputs_q, out_sharding=qkv_sharding)
        key = self.key(inputs_k, out_sharding=qkv_sharding)
        value = self.value(inputs_v, out_sharding=qkv_sharding)
        if self.query_ln is not None and self.key_ln is not None:
            query, key = self.query_ln(query), self.key_ln(key)

        options = {}
        if decode:
            step = _decode_step(self, query, key, value)
            key, value = step.key, step.value
            mask = step.visible if mask is None else combine_step_mask(mask, step.visible)
            is_causal = False  # the mask says it; the kernel takes the first query for position 0
            if input_positions is None and _takes_positions(self.attention_fn):
                input_positions = step.positions
        if input_positions is not None:
            options["input_positions"] = input_positions

        may_drop = known_rate(self.dropout_rate) != 0
        drops = may_drop and not choose_option(self, "deterministic", deterministic)
        dropout_rng = _dropout_key(self, rngs) if drops else None
        mixed = self.attention_fn(
            query,
            key,
            value,
            mask=mask,
            dropout_rng=dropout_rng,
            dropout_rate=self.dropout_rate,
            broadcast_dropout=self.broadcast_dropout,
            deterministic=not drops,
            dtype=self.dtype,
            precision=self.precision,
            module=self if sow_weights else None,
            is_causal=is_causal,
            **options,
        )
        return self.out(mixed, out_sharding=out_sharding)

    def init_cache(self, input_shape: Shape, dtype: Dtype = jnp.float32) -> None:
        """Makes an empty cache.

        Args:
          input_shape: the shape (batch..., max_length, in_features) of the longest input.
          dtype: the dtype that keys and values are stored in.

        Raises:
          ValueError: if there are fewer than two axes.
        """
        if len(input_shape) < 2:
            raise ValueError(
                "init_cache expects the shape (batch..., max_length, in_features) of the longest "
                f"input, found {tuple(input_shape)}: write "
                f"`layer.init_cache((1, 128, {self.in_features}))`"
            )
        shape = (*input_shape[:-1], self.num_kv_heads, self.head_dim)
        self.cached_key = Cache(jnp.zeros(shape, dtype))
        self.cached_value = Cache(jnp.zeros(shape, dtype))
        self.cache_index = Cache(jnp.zeros((), jnp.int32))

    def set_view(
        self,
        deterministic: bool | None = None,
        decode: bool | None = None,
        batch_size: int | Shape | None = None,
        max_length: int | None = None,
    ) -> None:
        """Sets what `nnx.view` asks for.

        Args:
          deterministic: whether to drop nothing.
          decode: whether to use the cache.
          batch_size: with `max_length`, makes an empty cache for this batch.
          max_length: with `batch_size`, makes an empty cache for this length.

        Raises:
          ValueError: if only one of `batch_size` and `max_length` is given.
        """
        if deterministic is not None:
            self.deterministic = deterministic
        if decode is not None:
            self.decode = decode
        if (batch_size is None) != (max_length is None):
            raise ValueError(
                "a cache needs both batch_size and max_length, found "
                f"batch_size={batch_size} and max_length={max_length}"
            )
        if batch_size is not None and max_length is not None:
            batch = (batch_size,) if isinstance(batch_size, int) else tuple(batch_size)
            self.init_cache((*batch, max_length, self.in_features))


def _decode_step(layer: Any, query: jax.Array, key: jax.Array, value: jax.Array) -> Step:
    if layer.cached_key is None or layer.cached_value is None or layer.cache_index is None:
        raise ValueError(
            "MultiHeadAttention has no cache to decode with: call "
            f"`layer.init_cache((*batch, max_length, {layer.in_features}))` first, or take "
            "`nnx.view(model, decode=True, batch_size=..., max_length=...)`"
        )
    return extend_cache(
        layer.cached_key,
        layer.cached_value,
        layer.cache_index,
        key,
        value,
        num_queries=query.shape[-3],
        remedy=lambda shape: f"layer.init_cache({(*shape, layer.in_features)})",
    )


def _dropout_key(layer: Any, rngs: Rngs | RngStream | jax.Array | None) -> jax.Array:
    example = (
        f"nnx.MultiHeadAttention({layer.num_heads}, {layer.in_features}, "
        f"dropout_rate={layer.dropout_rate}, "
    )
    return draw_key(rngs, layer.rngs, "dropout", "MultiHeadAttention", example)


def _check_heads(qkv_features: int, num_heads: int, num_kv_heads: int) -> None:
    if qkv_features % num_heads:
        raise ValueError(
            f"MultiHeadAttention cannot split qkv_features={qkv_features} into "
            f"num_heads={num_heads} heads of one size: choose a multiple, such as "
            f"`qkv_features={num_heads * math.ceil(qkv_features / num_heads)}`"
        )
    if num_heads % num_kv_heads:
        raise ValueError(
            f"MultiHeadAttention cannot share num_kv_heads={num_kv_heads} key heads evenly among "
            f"num_heads={num_heads} query heads: choose a number that divides {num_heads}"
        )


def _check_input(name: str, array: jax.Array, option: str, features: int) -> None:
    if array.shape[-1] != features:
        raise ValueError(
            f"MultiHeadAttention was made for {option}={features}, but {name} of shape "
            f"{array.shape} has {array.shape[-1]} features: make it with "
            f"`{option}={array.shape[-1]}`, or project the input first"
        )


def _takes_positions(function: Callable[..., Any]) -> bool:
    try:
        return "input_positions" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return False
