"""Low-rank adapters: a layer keeps its weights, and the product of two thin matrices is learnt.

An *adapter* is a `LoRA`: it holds the *factors* a and b of a change to a kernel. An *adapted layer*
has the attributes of the layer it was, and its adapter as `lora`. Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from weft._module import Module
from weft._rng import Rngs
from weft._variable.types import Param
from weft._variable.variable import A
from weft.nn import dtypes
from weft.nn.initializers import Initializer, he_uniform, zeros_init
from weft.nn.linear import Linear, OutSharding, given
from weft.nn.nnx_names import names_for
from weft.nn.parameters import NO_METADATA, check_sizes, new_param, sizes

__getattr__ = names_for(__name__)

default_a_initializer = he_uniform()
default_b_initializer = zeros_init()


class LoRAParam(Param[A]):
    """A factor of a low-rank adapter; the type to train, `wrt=nnx.LoRAParam`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> isinstance(nnx.LoRAParam(jnp.zeros(2)), nnx.Param)
      True
    """


class LoRA(Module):
    """A low-rank linear layer, alone or added to another layer.

    Args:
      in_features: size of the inputs' last axis, or sizes of its last axes.
      lora_rank: the rank, size of the axis between the factors.
      out_features: size of the outputs' last axis, or sizes of its last axes.
      base_module: a layer whose outputs are added; it is called with the inputs in the
        adapter's computation dtype. None for none.
      dtype: computation dtype; by default what inputs and factors promote to.
      param_dtype: dtype of the factors.
      a_initializer: initializer of `lora_a`, called with the shape of a matrix.
      b_initializer: likewise, of `lora_b`; zeros make the adapter change nothing at first.
      lora_param_type: Variable type of the factors.
      promote_dtype: what casts inputs and factors to `dtype`.
      rngs: random streams; `params` is used.
      a_metadata: keyword metadata of `lora_a`.
      b_metadata: keyword metadata of `lora_b`.
      batch_shape: sizes of leading axes of both factors, along which they differ; the inputs
        have these axes too, unless a transform such as `nnx.vmap` takes them away.
      scale: number that the result is multiplied by.

    Attributes:
      lora_a: LoRAParam of shape (in_features, lora_rank).
      lora_b: LoRAParam of shape (lora_rank, out_features).

    Raises:
      ValueError: if the rank is not positive.
      TypeError: if `base_module` cannot be called, or `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.LoRA(3, 2, 4, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((16, 3))).shape
      (16, 4)
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        lora_rank: int,
        out_features: int | Sequence[int],
        *,
        base_module: Callable[..., jax.Array] | None = None,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        a_initializer: Initializer = default_a_initializer,
        b_initializer: Initializer = default_b_initializer,
        lora_param_type: type[Param] = LoRAParam,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        a_metadata: Mapping[str, Any] = NO_METADATA,
        b_metadata: Mapping[str, Any] = NO_METADATA,
        batch_shape: Sequence[int] = (),
        scale: float = 1.0,
    ):
        check_sizes(self, in_features=in_features, out_features=out_features)
        check_sizes(self, lora_rank=lora_rank, batch_shape=tuple(batch_shape))
        if base_module is not None and not callable(base_module):
            raise TypeError(
                f"LoRA expects base_module to be a layer or another callable, found "
                f"{base_module!r} of type {type(base_module).__name__}"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.lora_param_type = lora_param_type
        self.base_module = base_module
        self.promote_dtype = promote_dtype
        self.scale = scale
        batch, ins, outs = tuple(batch_shape), sizes(in_features), sizes(out_features)
        self.lora_a = new_param(
            self,
            rngs,
            _for_each(batch, a_initializer),
            (*batch, *ins, lora_rank),
            param_dtype,
            a_metadata,
            drawn_as=(math.prod(ins), lora_rank),
            param_type=lora_param_type,
        )
        self.lora_b = new_param(
            self,
            rngs,
            _for_each(batch, b_initializer),
            (*batch, lora_rank, *outs),
            param_dtype,
            b_metadata,
            drawn_as=(lora_rank, math.prod(outs)),
            param_type=lora_param_type,
        )

    def __call__(self, x: jax.Array, **kwargs: Any) -> jax.Array:
        """Applies the layer.

        Args:
          x: array of shape (..., in_features).
          **kwargs: passed on to `base_module`.

        Returns:
          The adapter's outputs, of shape (..., out_features), plus those of `base_module`.

        Raises:
          ValueError: if the last axes of `x` do not have the sizes `in_features`.
        """
        inputs, a, b = factors(self, x)
        ins = sizes(self.in_features)
        axes = tuple(range(inputs.ndim - len(ins), inputs.ndim))
        if inputs.shape[-len(ins) :] != ins:
            raise ValueError(
                f"LoRA(in_features={self.in_features}, out_features={self.out_features}) expects "
                f"inputs of shape (..., {', '.join(map(str, ins))}), found shape {inputs.shape}: "
                "make it with the sizes of the inputs' last axes, `nnx.LoRA("
                f"{inputs.shape[-1] if inputs.ndim else 1}, rank, {self.out_features}, ...)`"
            )
        outputs = expand(self, contract(self, inputs, a, axes), b)
        if self.base_module is None:
            return outputs
        with jax.numpy_dtype_promotion("standard"):  # `dtype` is the adapter's, not the base's
            return outputs + self.base_module(inputs, **kwargs)


def factors(layer: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns inputs and factors in the computation dtype."""
    x = dtypes.as_array(x)
    return layer.promote_dtype((x, layer.lora_a[...], layer.lora_b[...]), dtype=layer.dtype)


def contract(layer: Any, inputs: jax.Array, a: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns the product of inputs and a over `axes`: batch axes, the other axes, the rank."""
    if a.ndim == 2 and axes == (inputs.ndim - 1,):
        return jnp.matmul(inputs, a)
    batch = tuple(range(a.ndim - len(axes) - 1))
    kernel_axes = tuple(range(len(batch), a.ndim - 1))
    return jax.lax.dot_general(inputs, a, ((axes, kernel_axes), (batch, batch)))


def expand(
    layer: Any, contracted: jax.Array, b: jax.Array, out_sharding: OutSharding = None
) -> jax.Array:
    """Returns the scaled product of a result of `contract` and b."""
    options = given(out_sharding=out_sharding)
    if b.ndim == 2:
        return scaled(layer, jnp.matmul(contracted, b, **options))
    batch = tuple(range(b.ndim - len(sizes(layer.out_features)) - 1))
    dimensions = (((contracted.ndim - 1,), (len(batch),)), (batch, batch))
    return scaled(layer, jax.lax.dot_general(contracted, b, dimensions, **options))


def scaled(layer: Any, outputs: jax.Array) -> jax.Array:
    """Returns outputs times `scale`."""
    scale = getattr(layer, "scale", 1)  # which the peer's layers lack
    return outputs if scale == 1 else outputs * scale


def _for_each(batch: tuple[int, ...], init: Initializer) -> Initializer:
    """Returns an initializer that draws for each batch index anew."""
    if not batch:
        return init

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        keys = jax.random.split(key, math.prod(batch))
        drawn = jax.vmap(lambda key: init(key, shape, dtype))(keys)
        return drawn.reshape(batch + shape)

    return draw


class KernelAxes(NamedTuple):
    """What the axes of a kernel are for.

    Attributes:
      shape: shape of the kernel of one layer.
      batch: axes that inputs and outputs have too.
      inputs: axes that are contracted with the inputs.
      outputs: axes that are new in the outputs.
    """

    shape: tuple[int, ...]
    batch: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class LoRALinear(Linear):
    """A Linear with a low-rank adapter.

    Args:
      in_features: size of the inputs' last axis.
      out_features: size of the outputs' last axis.
      lora_rank: the rank of the adapter.
      lora_dtype: computation dtype of the adapter; by default that of the layer.
      lora_param_dtype: dtype of the factors.
      a_initializer: initializer of `lora.lora_a`.
      b_initializer: initializer of `lora.lora_b`.
      lora_param_type: Variable type of the factors.
      lora_promote_dtype: what casts inputs and factors to `lora_dtype`.
      rngs: random streams; `params` is used.
      a_metadata: keyword metadata of `lora.lora_a`.
      b_metadata: keyword metadata of `lora.lora_b`.
      **kwargs: the other arguments of `Linear`.

    Attributes:
      kernel: Param of shape (in_features, out_features).
      bias: Param of shape (out_features,), or None.
      lora: the `LoRA`.

    Raises:
      ValueError: if the rank is not positive.
      TypeError: if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.LoRALinear(3, 4, lora_rank=2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((16, 3))).shape
      (16, 4)
    """

    lora: LoRA

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        lora_rank: int,
        lora_dtype: dtypes.Dtype | None = None,
        lora_param_dtype: dtypes.Dtype = jnp.float32,
        a_initializer: Initializer = default_a_initializer,
        b_initializer: Initializer = default_b_initializer,
        lora_param_type: type[Param] = LoRAParam,
        lora_promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        a_metadata: Mapping[str, Any] = NO_METADATA,
        b_metadata: Mapping[str, Any] = NO_METADATA,
        **kwargs: Any,
    ):
        super().__init__(in_features, out_features, rngs=rngs, **kwargs)
        self.lora = LoRA(
            in_features,
            lora_rank,
            out_features,
            dtype=self.dtype if lora_dtype is None else lora_dtype,
            param_dtype=lora_param_dtype,
            a_initializer=a_initializer,
            b_initializer=b_initializer,
            lora_param_type=lora_param_type,
            promote_dtype=lora_promote_dtype,
            rngs=rngs,
            a_metadata=a_metadata,
            b_metadata=b_metadata,
        )

    def __call__(self, x: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Applies the layer and its adapter.

        Args:
          x: array of shape (..., in_features).
          out_sharding: sharding of the result, on a mesh of explicit axes.

        Returns:
          An array of shape (..., out_features) and of the dtype that `Linear` gives.

        Raises:
          ValueError: if the last axis of `x` is not `in_features` long.
        """
        outputs = Linear.__call__(self, x, out_sharding)
        inputs, a, b = factors(self.lora, x)
        contracted = contract(self.lora, inputs, a, (inputs.ndim - 1,))
        return add_change(outputs, expand(self.lora, contracted, b, out_sharding))

    def kernel_axes(self) -> KernelAxes:
        """Returns what the axes of the kernel are for."""
        return KernelAxes((self.in_features, self.out_features), (), (0,), (1,))


def add_change(outputs: jax.Array, change: jax.Array) -> jax.Array:
    """Adds the outputs of an adapter without changing the dtype of the layer's outputs."""
    return outputs + jnp.asarray(change, outputs.dtype)
