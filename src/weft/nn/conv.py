"""Convolution over any number of spatial axes, channels last.

A *dilated size* is what a kernel of k elements spans when d - 1 gaps lie between them:
(k - 1) * d + 1. What is computed are functions of a layer, or of whatever has its attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from weft._module import Module
from weft._rng import Rngs
from weft.nn import dtypes
from weft.nn.initializers import Initializer, default_bias_init, default_kernel_init
from weft.nn.linear import OutSharding, add_bias, given
from weft.nn.padding import Padding, canonicalize_padding, per_axis
from weft.nn.parameters import NO_METADATA, check_sizes, new_param, optional_param, sizes
from weft.nn.torch_weights import TorchWeights, convolution

# The names that JAX pads by itself; the other ones of Conv are those that jnp.pad knows how to do.
_LAX_PADDINGS = ("SAME", "SAME_LOWER", "VALID")
_PAD_MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect", "CAUSAL": "constant"}


def dilated_size(size: int, dilation: int) -> int:
    """Returns how many elements a kernel spans."""
    return (size - 1) * dilation + 1


def check_padding(layer: Any, padding: Padding, names: tuple[str, ...]) -> None:
    """Raises unless `padding` has the right form and, if it is a name, is one of `names`."""
    form = canonicalize_padding(padding, len(layer.kernel_size))
    if isinstance(form, str) and form not in names:
        raise ValueError(
            f"{type(layer).__name__} with kernel_size={layer.kernel_size} expects padding to be "
            f"one of {names}, an int, or a (low, high) pair for each spatial axis, found "
            f"{padding!r}"
        )


def check_mask(layer: Any) -> None:
    """Raises unless the layer's mask, if it has one, has the kernel's shape."""
    if layer.mask is not None and jnp.shape(layer.mask) != layer.kernel_shape:
        raise ValueError(
            f"{type(layer).__name__} expects a mask of the kernel's shape {layer.kernel_shape}, "
            f"found shape {jnp.shape(layer.mask)}: `mask=jnp.ones({layer.kernel_shape})` is one"
        )


def operands(layer: Any, inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Returns inputs, masked kernel and bias in the computation dtype."""
    kernel = layer.kernel[...]
    if layer.mask is not None:
        check_mask(layer)
        with jax.numpy_dtype_promotion("standard"):  # masks may be booleans or integers
            kernel = kernel * layer.mask
    bias = None if layer.bias is None else layer.bias[...]
    inputs = dtypes.as_array(inputs)
    inputs, kernel, bias = layer.promote_dtype((inputs, kernel, bias), dtype=layer.dtype)
    rank = len(layer.kernel_size)
    if inputs.ndim <= rank or inputs.shape[-1] != layer.in_features:
        channels = inputs.shape[-1] if inputs.ndim else 1
        raise ValueError(
            f"{type(layer).__name__}(in_features={layer.in_features}, "
            f"out_features={layer.out_features}, kernel_size={layer.kernel_size}) expects inputs "
            f"of shape (..., {'space, ' * rank}{layer.in_features}), channels last, found shape "
            f"{inputs.shape}: make it `nnx.{type(layer).__name__}({channels}, "
            f"{layer.out_features}, ...)`, or bring the channels to the last axis with "
            "jnp.moveaxis"
        )
    return inputs, kernel, bias


def with_one_batch_axis(inputs: jax.Array, rank: int) -> jax.Array:
    """Merges or adds axes before the `rank` spatial axes and the channels, such that it is one."""
    if inputs.ndim == rank + 2:
        return inputs
    space = inputs.shape[-rank - 1 :]
    return jnp.reshape(inputs, (math.prod(inputs.shape[: -rank - 1]), *space))


def channels_last(rank: int) -> jax.lax.ConvDimensionNumbers:
    """Returns which axes are batch, channels and space, of inputs, kernel and outputs."""
    data = (0, rank + 1, *range(1, rank + 1))
    kernel = (rank + 1, rank, *range(rank))
    return jax.lax.ConvDimensionNumbers(data, kernel, data)


class Conv(Module):
    """Convolution, as neural networks define it: the kernel is not flipped.

    The size of a spatial axis after the layer, for n elements, stride s, dilated kernel size k and
    padding (low, high):

    | padding | size |
    | --- | --- |
    | "SAME", "SAME_LOWER", "CIRCULAR", "REFLECT", "CAUSAL" | ceil(n / s) |
    | "VALID" | floor((n - k) / s) + 1 |
    | numbers | floor((n + low + high - k) / s) + 1 |

    Args:
      in_features: number of input channels.
      out_features: number of output channels.
      kernel_size: extent of the kernel along each spatial axis; an int means one axis.
      strides: step of the window, one for all axes or one each.
      padding: "SAME", "SAME_LOWER", "VALID", "CIRCULAR" (the image goes round), "REFLECT" (it
        is mirrored at its edges, which are not repeated), "CAUSAL" (one axis: no output sees
        later inputs), an int for all sides, or an int or (low, high) for each axis.
      input_dilation: distance to put between neighbouring inputs.
      kernel_dilation: distance between neighbouring kernel elements (atrous convolution).
      feature_group_count: number of groups that channels are split into; as many as there are
        input channels for a depthwise convolution.
      use_bias: whether there is a bias.
      mask: array of the kernel's shape that the kernel is multiplied by.
      dtype: computation dtype; by default what inputs and parameters promote to.
      param_dtype: dtype of the parameters.
      precision: precision of the products, see `jax.lax.Precision`.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      conv_general_dilated: what to compute with, in place of `jax.lax.conv_general_dilated`.
      promote_dtype: what casts inputs and parameters to `dtype`.
      preferred_element_type: dtype in which the products accumulate and are returned.
      rngs: random streams; `params` is used.
      kernel_metadata: keyword metadata of the kernel.
      bias_metadata: keyword metadata of the bias.

    Attributes:
      kernel: Param of shape (*kernel_size, in_features / feature_group_count, out_features).
      bias: Param of shape (out_features,), or None.

    Raises:
      ValueError: if an argument does not fit `kernel_size`, if the groups do not divide the
        channels, or if the mask has another shape than the kernel.
      TypeError: if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.Conv(3, 8, kernel_size=(3, 3), strides=2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 28, 28, 3))).shape
      (1, 14, 14, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        padding: Padding = "SAME",
        input_dilation: int | Sequence[int] | None = 1,
        kernel_dilation: int | Sequence[int] | None = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        mask: jax.typing.ArrayLike | None = None,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        precision: jax.lax.PrecisionLike = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        conv_general_dilated: Callable[..., jax.Array] = jax.lax.conv_general_dilated,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        preferred_element_type: dtypes.Dtype | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        check_sizes(
            self, in_features=in_features, out_features=out_features, kernel_size=kernel_size
        )
        self.kernel_size = sizes(kernel_size)
        rank = len(self.kernel_size)
        if in_features % feature_group_count or out_features % feature_group_count:
            raise ValueError(
                f"Conv expects feature_group_count to divide in_features={in_features} and "
                f"out_features={out_features}, found feature_group_count={feature_group_count}: "
                f"{math.gcd(in_features, out_features)} is the largest that does"
            )
        per_axis(strides, rank, owner="Conv", argument="strides")
        per_axis(input_dilation, rank, owner="Conv", argument="input_dilation")
        per_axis(kernel_dilation, rank, owner="Conv", argument="kernel_dilation")
        names = (*_LAX_PADDINGS, *_PAD_MODES)
        check_padding(self, padding, names if rank == 1 else names[:-1])
        shape = (*self.kernel_size, in_features // feature_group_count, out_features)
        self.kernel_shape = shape
        self.mask = None if mask is None else jnp.asarray(mask)
        check_mask(self)
        self.kernel = new_param(self, rngs, kernel_init, shape, param_dtype, kernel_metadata)
        self.bias = optional_param(
            self, use_bias, rngs, bias_init, (out_features,), param_dtype, bias_metadata
        )
        self.in_features = in_features
        self.out_features = out_features
        self.strides = strides
        self.padding = padding
        self.input_dilation = input_dilation
        self.kernel_dilation = kernel_dilation
        self.feature_group_count = feature_group_count
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.conv_general_dilated = conv_general_dilated
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type

    @property
    def torch_weights(self) -> TorchWeights:
        """What `nnx.load_weights` takes for kernel and bias: those of a `torch.nn.Conv2d`."""
        return {"weight": convolution(len(self.kernel_size)), "bias": "bias"}

    def __call__(self, inputs: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Applies the layer.

        Args:
          inputs: array of shape (*batch, *space, in_features); any number of batch axes, none too.
          out_sharding: sharding of the result, on a mesh of explicit axes.

        Returns:
          An array of shape (*batch, *space, out_features).

        Raises:
          ValueError: if the inputs have too few axes or another number of channels.
        """
        inputs, kernel, bias = operands(self, inputs)
        return convolve(self, inputs, kernel, bias, out_sharding)


def convolve(
    layer: Any,
    inputs: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    out_sharding: OutSharding = None,
) -> jax.Array:
    """Convolves with any kernel of this layer's extent and strides."""
    rank = len(layer.kernel_size)
    batch = inputs.shape[: -rank - 1]
    inputs = with_one_batch_axis(inputs, rank)
    inputs, padding = _pad(layer, inputs)
    outputs = layer.conv_general_dilated(
        inputs,
        kernel,
        per_axis(layer.strides, rank, owner="Conv", argument="strides"),
        padding,
        lhs_dilation=_dilation(layer, "input_dilation"),
        rhs_dilation=_dilation(layer, "kernel_dilation"),
        dimension_numbers=channels_last(rank),
        feature_group_count=layer.feature_group_count,
        precision=layer.precision,
        **given(
            preferred_element_type=layer.preferred_element_type,
            # With another number of batch axes it would not fit the flattened outputs.
            out_sharding=out_sharding if len(batch) == 1 else None,
        ),
    )
    outputs = add_bias(outputs, bias)
    if len(batch) == 1:
        return outputs
    shape = batch + outputs.shape[1:]
    return jnp.reshape(outputs, shape, out_sharding=out_sharding)


def _dilation(layer: Any, argument: str) -> tuple[int, ...]:
    value = getattr(layer, argument)
    return per_axis(value, len(layer.kernel_size), owner="Conv", argument=argument)


def _pad(layer: Any, inputs: jax.Array) -> tuple[jax.Array, str | list[tuple[int, int]]]:
    """Does the padding that JAX does not do; returns the inputs and what is left to do."""
    rank = len(layer.kernel_size)
    padding = canonicalize_padding(layer.padding, rank)
    if not isinstance(padding, str):
        return inputs, padding
    dilation = _dilation(layer, "input_dilation")
    spans = tuple(map(dilated_size, layer.kernel_size, _dilation(layer, "kernel_dilation")))
    if padding in _LAX_PADDINGS:
        if all(d == 1 for d in dilation):
            return inputs, padding
        space = tuple(map(dilated_size, inputs.shape[1:-1], dilation))
        strides = per_axis(layer.strides, rank, owner="Conv", argument="strides")
        return inputs, jax.lax.padtype_to_pads(space, spans, strides, padding)  # type: ignore[return-value]
    if any(d != 1 for d in dilation):
        raise ValueError(
            f"Conv cannot pad with {padding!r} between dilated inputs, found "
            f"input_dilation={layer.input_dilation}: pad the inputs yourself with jnp.pad and "
            "use `padding='VALID'`"
        )
    causal = padding == "CAUSAL"
    sides = [(k - 1, 0) if causal else ((k - 1) // 2, k // 2) for k in spans]
    return jnp.pad(inputs, [(0, 0), *sides, (0, 0)], mode=_PAD_MODES[padding]), "VALID"
