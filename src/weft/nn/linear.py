"""Layers that contract their inputs with a kernel and add a bias.

*Features* are the axes that a layer replaces: the kernel holds first the input features, then the
output features. *Batch axes* of `LinearGeneral` are axes along which the kernel differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from weft._module import Module
from weft._rng import Rngs
from weft.nn import dtypes
from weft.nn.initializers import (
    Initializer,
    default_bias_init,
    default_kernel_init,
)
from weft.nn.initializers import default_embed_init as default_embed_init
from weft.nn.nnx_names import names_for
from weft.nn.padding import canonicalize_padding as canonicalize_padding
from weft.nn.parameters import NO_METADATA, check_sizes, new_param, optional_param, sizes
from weft.nn.torch_weights import Into, TorchWeights, matrix, reshaped

__getattr__ = names_for(
    __name__,
    Conv="weft.nn.conv",
    ConvTranspose="weft.nn.conv_transpose",
    Einsum="weft.nn.einsum",
    Embed="weft.nn.embed",
    _canonicalize_tuple="weft.nn.linear:sizes",
    _conv_dimension_numbers="weft.nn.nnx_helpers:conv_dimension_numbers",
    _normalize_axes="weft.nn.moments:normalized_axes",
)
OutSharding = jax.sharding.NamedSharding | jax.sharding.PartitionSpec | None


def add_bias(outputs: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Adds a bias to the last axes of `outputs`; None adds nothing."""
    if bias is None:
        return outputs
    bias = jnp.reshape(bias, (1,) * (outputs.ndim - bias.ndim) + bias.shape)
    with jax.numpy_dtype_promotion("standard"):  # `preferred_element_type` may differ from `dtype`
        return outputs + bias


def given(**options: Any) -> dict[str, Any]:
    """Returns the options that are not None: not every function a user supplies takes all."""
    return {name: value for name, value in options.items() if value is not None}


class Linear(Module):
    """Multiplies the last axis of its inputs by a matrix and adds a bias.

    Args:
      in_features: size of the inputs' last axis.
      out_features: size of the outputs' last axis.
      use_bias: whether there is a bias.
      dtype: computation dtype; by default what inputs and parameters promote to.
      param_dtype: dtype of the parameters.
      precision: precision of the product, see `jax.lax.Precision`.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      dot_general: what to compute the product with, in place of `jax.lax.dot_general`.
      promote_dtype: what casts inputs and parameters to `dtype`.
      preferred_element_type: dtype in which the product accumulates and is returned.
      rngs: random streams; `params` is used.
      kernel_metadata: keyword metadata of the kernel.
      bias_metadata: keyword metadata of the bias.

    Attributes:
      kernel: Param of shape (in_features, out_features).
      bias: Param of shape (out_features,), or None.

    Raises:
      TypeError: if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 3))).shape
      (2, 4)
    """

    torch_weights: ClassVar[TorchWeights] = {
        "weight": Into("kernel", axes=(1, 0)),
        "bias": "bias",
    }

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        precision: jax.lax.PrecisionLike = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        dot_general: Callable[..., jax.Array] = jax.lax.dot_general,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        preferred_element_type: dtypes.Dtype | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        check_sizes(self, in_features=in_features, out_features=out_features)
        shape = (in_features, out_features)
        self.kernel = new_param(self, rngs, kernel_init, shape, param_dtype, kernel_metadata)
        self.bias = optional_param(
            self, use_bias, rngs, bias_init, (out_features,), param_dtype, bias_metadata
        )
        self.in_features = in_features
        self.out_features = out_features
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.dot_general = dot_general
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type

    def __call__(self, inputs: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Applies the layer.

        Args:
          inputs: array of shape (..., in_features).
          out_sharding: sharding of the result, on a mesh of explicit axes.

        Returns:
          An array of shape (..., out_features).

        Raises:
          ValueError: if the last axis of `inputs` is not `in_features` long.
        """
        kernel = self.kernel[...]
        bias = None if self.bias is None else self.bias[...]
        inputs = dtypes.as_array(inputs)
        inputs, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)
        _check_matrix_inputs(self, inputs.shape, kernel.shape)
        outputs = self.dot_general(
            inputs,
            kernel,
            (((inputs.ndim - 1,), (0,)), ((), ())),
            precision=self.precision,
            **given(preferred_element_type=self.preferred_element_type, out_sharding=out_sharding),
        )
        return add_bias(outputs, bias)


def _check_matrix_inputs(layer: Linear, inputs: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    if len(kernel) == 2 and inputs and inputs[-1] == kernel[0]:
        return
    kind, ins, outs = type(layer).__name__, layer.in_features, layer.out_features
    name = f"{kind}(in_features={ins}, out_features={outs})"
    if len(kernel) != 2:
        raise ValueError(
            f"{name} expects a kernel of two axes, found one of shape {kernel}: a stack of layers "
            "is called inside nnx.vmap or nnx.scan, `nnx.vmap(lambda layer, x: layer(x))(stack, x)`"
        )
    if kernel != (ins, outs) and inputs and inputs[-1] == ins:
        raise ValueError(
            f"{name} expects a kernel of shape {(ins, outs)}, found one of shape {kernel}: a stack "
            "of layers is taken apart along the axis that it was put together by, "
            "`nnx.scan(..., in_axes=(nnx.Carry, 0))` for layers of `nnx.vmap(..., out_axes=0)`"
        )
    remedy = "give the inputs a last axis, `inputs[..., None]`"
    if inputs:
        remedy = (
            f"make it `nnx.{kind}({inputs[-1]}, {outs}, ...)`, or bring the "
            "features to the last axis with jnp.moveaxis"
        )
    raise ValueError(
        f"{name} expects inputs of shape (..., {kernel[0]}), found shape {inputs}: {remedy}"
    )


class LinearGeneral(Module):
    """Contracts any axes of its inputs with a kernel and adds a bias.

    The initializers see a matrix, (batch and input sizes, output sizes), and a vector.

    Args:
      in_features: sizes of the contracted axes, in the order in which the inputs have them.
      out_features: sizes of the new axes, which come last in the outputs.
      axis: the contracted axes.
      batch_axis: sizes of the batch axes, keyed by axis; these are the leading axes 0, 1, ...
      use_bias: whether there is a bias.
      dtype: computation dtype; by default what inputs and parameters promote to.
      param_dtype: dtype of the parameters.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      precision: precision of the product, see `jax.lax.Precision`.
      promote_dtype: what casts inputs and parameters to `dtype`.
      dot_general: what to compute the product with, in place of `jax.lax.dot_general`.
      dot_general_cls: called before each product to make such a function; wins over it.
      preferred_element_type: dtype in which the product accumulates and is returned.
      rngs: random streams; `params` is used.
      kernel_metadata: keyword metadata of the kernel.
      bias_metadata: keyword metadata of the bias.

    Attributes:
      kernel: Param of shape (*batch sizes, *in_features, *out_features).
      bias: Param of shape (*batch sizes, *out_features), or None.

    Raises:
      ValueError: if there are not as many axes as input sizes, or if the batch axes are not the
        leading ones.
      TypeError: if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> heads = nnx.LinearGeneral(6, (2, 3), rngs=nnx.Rngs(0))
      >>> heads(jnp.ones((5, 6))).shape
      (5, 2, 3)
      >>> merge = nnx.LinearGeneral((2, 3), 6, axis=(-2, -1), rngs=nnx.Rngs(0))
      >>> merge(jnp.ones((5, 2, 3))).shape
      (5, 6)
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        *,
        axis: int | Sequence[int] = -1,
        batch_axis: Mapping[int, int] = NO_METADATA,  # type: ignore[assignment]
        use_bias: bool = True,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        precision: jax.lax.PrecisionLike = None,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        dot_general: Callable[..., jax.Array] | None = None,
        dot_general_cls: Callable[[], Callable[..., jax.Array]] | None = None,
        preferred_element_type: dtypes.Dtype | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        check_sizes(self, in_features=in_features, out_features=out_features)
        check_sizes(self, batch_axis=tuple(batch_axis.values()))
        self.in_features = sizes(in_features)
        self.out_features = sizes(out_features)
        self.axis = sizes(axis)
        self.batch_axis = dict(batch_axis)
        if len(self.in_features) != len(self.axis):
            raise ValueError(
                f"LinearGeneral expects one axis for each of in_features={self.in_features}, found "
                f"axis={self.axis}: to contract the last axes, pass "
                f"`axis={tuple(range(-len(self.in_features), 0))}`"
            )
        if sorted(self.batch_axis) != list(range(len(self.batch_axis))):
            raise ValueError(
                "LinearGeneral expects its batch axes to be the leading axes 0, 1, ..., found "
                f"batch_axis={self.batch_axis}: bring them to the front of the inputs with "
                "jnp.moveaxis"
            )
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.dot_general = dot_general
        self.dot_general_cls = dot_general_cls
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type
        batch = tuple(self.batch_axis[i] for i in range(len(self.batch_axis)))
        self.kernel = new_param(
            self,
            rngs,
            kernel_init,
            batch + self.in_features + self.out_features,
            param_dtype,
            kernel_metadata,
            drawn_as=(math.prod(batch + self.in_features), math.prod(self.out_features)),
        )
        shape = batch + self.out_features
        drawn_as = (math.prod(shape),)
        self.bias = optional_param(
            self, use_bias, rngs, bias_init, shape, param_dtype, bias_metadata, drawn_as=drawn_as
        )

    @property
    def torch_weights(self) -> TorchWeights:
        """What `nnx.load_weights` takes for kernel and bias: those of a `torch.nn.Linear`."""
        if self.batch_axis:
            return {"weight": "kernel", "bias": "bias"}
        return {
            "weight": matrix(self.in_features, self.out_features),
            "bias": reshaped("bias", self.out_features, (-1,)),
        }

    def __call__(self, inputs: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Applies the layer.

        Args:
          inputs: array that has the batch axes first and the contracted axes anywhere.
          out_sharding: sharding of the result, on a mesh of explicit axes.

        Returns:
          An array of the batch axes, the axes that are not contracted, and `out_features`.

        Raises:
          ValueError: if an axis of `inputs` does not have the size that the layer was made for.
        """
        kernel = self.kernel[...]
        bias = None if self.bias is None else self.bias[...]
        inputs = dtypes.as_array(inputs)
        inputs, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)
        batch, contracted = input_axes(self, inputs.shape)
        kernel_axes = tuple(range(len(batch), len(batch) + len(contracted)))
        outputs = _product(self)(
            inputs,
            kernel,
            ((contracted, kernel_axes), (batch, batch)),
            precision=self.precision,
            **given(preferred_element_type=self.preferred_element_type, out_sharding=out_sharding),
        )
        if bias is not None:
            free = inputs.ndim - len(batch) - len(contracted)
            bias = jnp.reshape(
                bias, bias.shape[: len(batch)] + (1,) * free + bias.shape[len(batch) :]
            )
        return add_bias(outputs, bias)


def _product(layer: Any) -> Callable[..., jax.Array]:
    """Returns the function to compute the product with."""
    if layer.dot_general_cls is not None:
        return layer.dot_general_cls()
    return layer.dot_general or jax.lax.dot_general


def input_axes(layer: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the batch axes and the contracted axes of inputs of a shape, both ascending.

    Raises:
      ValueError: if inputs of this shape do not fit the layer.
    """
    rank = len(shape)
    batch = tuple(range(len(layer.batch_axis)))
    contracted = tuple(sorted(axis + rank * (axis < 0) for axis in layer.axis))
    expected = dict(layer.batch_axis) | dict(zip(contracted, layer.in_features, strict=True))
    wrong = [
        f"axis {axis} of size {size}"
        for axis, size in expected.items()
        if not 0 <= axis < rank or shape[axis] != size
    ]
    if wrong or len(expected) != len(batch) + len(contracted):
        raise ValueError(
            f"LinearGeneral(in_features={layer.in_features}, out_features={layer.out_features}, "
            f"axis={layer.axis}, batch_axis={layer.batch_axis}) expects inputs with "
            f"{', '.join(wrong) or 'distinct batch and contracted axes'}, found shape {shape}: "
            "in_features are the sizes of the contracted axes in the order in which the inputs "
            "have them; `axis=` says which ones they are"
        )
    return batch, contracted
