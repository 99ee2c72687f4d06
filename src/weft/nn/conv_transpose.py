"""Transposed convolution over any number of spatial axes, channels last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from weft._module import Module
from weft._rng import Rngs
from weft.nn import dtypes
from weft.nn.conv import (
    channels_last,
    check_mask,
    check_padding,
    dilated_size,
    operands,
    with_one_batch_axis,
)
from weft.nn.initializers import Initializer, default_bias_init, default_kernel_init
from weft.nn.linear import add_bias
from weft.nn.padding import Padding, canonicalize_padding, per_axis
from weft.nn.parameters import NO_METADATA, check_sizes, new_param, optional_param, sizes
from weft.nn.torch_weights import TorchWeights, convolution, flipped_convolution


class ConvTranspose(Module):
    """Transposed convolution, also called deconvolution: it undoes the shape of a convolution.

    The size of a spatial axis after the layer, for n elements, stride s, dilated kernel size k and
    padding (low, high):

    | padding | size |
    | --- | --- |
    | "SAME", "CIRCULAR" | n * s |
    | "VALID" | (n - 1) * s + max(k, s) |
    | numbers, `output_padding=None` | (n - 1) * s + 2 - k + low + high |
    | numbers or "VALID", `output_padding=p` | (n - 1) * s + k - low - high + p |

    The last row is PyTorch's: numbers mean the padding of the convolution whose shape is undone. If
    a `Conv` of the same kernel size, strides and padding turns N elements into n, this layer turns
    those into N again with `output_padding=(N + low + high - k) % s`. In the row before it, numbers
    mean the padding of the inputs themselves.

    With `transpose_kernel=True` and the kernel of a `Conv`, the layer is the transpose of that
    `Conv` (the gradient with respect to its inputs), for each padding whose sizes fit.

    Weights of PyTorch, of shape (in, out, *kernel_size), go into a layer that was made with
    `transpose_kernel=True, output_padding=0` as `jnp.moveaxis(weights, (1, 0), (-2, -1))`.

    Args:
      in_features: number of input channels.
      out_features: number of output channels.
      kernel_size: extent of the kernel along each spatial axis; an int means one axis.
      strides: distance to put between neighbouring inputs, one for all axes or one each.
      padding: "SAME", "VALID", "CIRCULAR", an int for all sides, or an int or (low, high) for
        each axis; what numbers mean depends on `output_padding`.
      kernel_dilation: distance between neighbouring kernel elements.
      use_bias: whether there is a bias.
      mask: array of the kernel's shape that the kernel is multiplied by.
      dtype: computation dtype; by default what inputs and parameters promote to.
      param_dtype: dtype of the parameters.
      precision: precision of the products, see `jax.lax.Precision`.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      transpose_kernel: whether to flip the kernel and swap its channels, as the gradient of a
        convolution does.
      promote_dtype: what casts inputs and parameters to `dtype`.
      preferred_element_type: dtype in which the products accumulate and are returned.
      rngs: random streams; `params` is used.
      kernel_metadata: keyword metadata of the kernel.
      bias_metadata: keyword metadata of the bias.
      output_padding: elements to add at the high end of each axis, one number for all axes or
        one each; given, 0 included, it gives numbers in `padding` PyTorch's meaning.

    Attributes:
      kernel: Param of shape (*kernel_size, in_features, out_features), the last two swapped if
        `transpose_kernel`.
      bias: Param of shape (out_features,), or None.

    Raises:
      ValueError: if an argument does not fit `kernel_size`, or if the mask has another shape
        than the kernel.
      TypeError: if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.ConvTranspose(8, 3, kernel_size=(3, 3), strides=2, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 14, 14, 8))).shape
      (1, 28, 28, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        *,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] | None = None,
        use_bias: bool = True,
        mask: jax.typing.ArrayLike | None = None,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        precision: jax.lax.PrecisionLike = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        transpose_kernel: bool = False,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        preferred_element_type: dtypes.Dtype | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
        output_padding: int | Sequence[int] | None = None,
    ):
        check_sizes(
            self, in_features=in_features, out_features=out_features, kernel_size=kernel_size
        )
        self.kernel_size = sizes(kernel_size)
        rank = len(self.kernel_size)
        per_axis(strides, rank, owner="ConvTranspose", argument="strides")
        per_axis(kernel_dilation, rank, owner="ConvTranspose", argument="kernel_dilation")
        check_padding(self, padding, ("SAME", "VALID", "CIRCULAR"))
        channels = (out_features, in_features) if transpose_kernel else (in_features, out_features)
        shape = self.kernel_shape = self.kernel_size + channels
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
        self.kernel_dilation = kernel_dilation
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.transpose_kernel = transpose_kernel
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type
        self.output_padding = output_padding
        _sides(self)

    @property
    def torch_weights(self) -> TorchWeights:
        """What `nnx.load_weights` takes: kernel and bias of a `torch.nn.ConvTranspose2d`."""
        kernel = convolution if self.transpose_kernel else flipped_convolution
        return {"weight": kernel(len(self.kernel_size)), "bias": "bias"}

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the layer.

        Args:
          inputs: array of shape (*batch, *space, in_features); any number of batch axes, none too.

        Returns:
          An array of shape (*batch, *space, out_features).

        Raises:
          ValueError: if the inputs have too few axes or another number of channels.
        """
        inputs, kernel, bias = operands(self, inputs)
        rank = len(self.kernel_size)
        batch, space = inputs.shape[: -rank - 1], inputs.shape[-rank - 1 : -1]
        strides = _per_axis(self, "strides")
        padding = _sides(self)
        outputs = jax.lax.conv_transpose(
            with_one_batch_axis(inputs, rank),
            kernel,
            strides,
            "VALID" if padding == "CIRCULAR" else padding,
            rhs_dilation=_per_axis(self, "kernel_dilation"),
            dimension_numbers=channels_last(rank),
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        if padding == "CIRCULAR":
            outputs = _wrap(
                self, outputs, tuple(n * s for n, s in zip(space, strides, strict=True))
            )
        outputs = add_bias(outputs, bias)
        return outputs if len(batch) == 1 else jnp.reshape(outputs, batch + outputs.shape[1:])


def _per_axis(layer: Any, argument: str) -> tuple[int, ...]:
    value = getattr(layer, argument)
    return per_axis(value, len(layer.kernel_size), owner="ConvTranspose", argument=argument)


def _spans(layer: Any) -> tuple[int, ...]:
    return tuple(map(dilated_size, layer.kernel_size, _per_axis(layer, "kernel_dilation")))


def _sides(layer: Any) -> str | list[tuple[int, int]]:
    """Returns the padding as `jax.lax.conv_transpose` reads it, or "CIRCULAR"."""
    rank = len(layer.kernel_size)
    padding = canonicalize_padding(layer.padding, rank)
    output_padding = getattr(layer, "output_padding", None)  # which the peer's layers lack
    if output_padding is None:
        return padding
    extra = (output_padding,) * rank if isinstance(output_padding, int) else tuple(output_padding)
    limit = tuple(map(max, _per_axis(layer, "strides"), _per_axis(layer, "kernel_dilation")))
    if len(extra) != rank or not all(0 <= e < top for e, top in zip(extra, limit, strict=False)):
        raise ValueError(
            f"ConvTranspose expects each output_padding to be below the axis's stride or "
            f"kernel dilation, {limit}, found {output_padding}: "
            "`output_padding=(N + low + high - k) % stride` gives back N elements"
        )
    if padding == "VALID":
        padding = [(0, 0)] * rank
    if isinstance(padding, str):
        raise ValueError(
            f"ConvTranspose cannot combine padding={layer.padding!r} with "
            f"output_padding={output_padding}: give the padding as numbers, "
            f"`padding={tuple((k - 1) // 2 for k in _spans(layer))}`, or leave out "
            "output_padding"
        )
    return [
        (k - 1 - low, k - 1 - high + e)
        for k, (low, high), e in zip(_spans(layer), padding, extra, strict=True)
    ]


def _wrap(layer: Any, outputs: jax.Array, periods: tuple[int, ...]) -> jax.Array:
    """Adds what sticks out of a period of each spatial axis to where it lies in the period."""
    starts = []
    for k, stride in zip(_spans(layer), _per_axis(layer, "strides"), strict=True):
        # A Conv begins its windows (k - 1) // 2 before the image, so its transpose does too.
        # A kernel that is not transposed is centred in the period.
        starts.append((k - 1) // 2 if layer.transpose_kernel else max(k - stride, 0) // 2)
    pads = []
    for size, start, period in zip(outputs.shape[1:-1], starts, periods, strict=True):
        around = max(-(-start // period), -(-(size - period - start) // period), 0)
        pads.append((around * period - start, (around + 1) * period + start - size))
    outputs = jnp.pad(outputs, [(0, 0), *pads, (0, 0)])
    for axis, period in enumerate(periods, 1):
        shape = outputs.shape
        outputs = jnp.reshape(outputs, (*shape[:axis], -1, period, *shape[axis + 1 :]))
        outputs = outputs.sum(axis)
    return outputs
