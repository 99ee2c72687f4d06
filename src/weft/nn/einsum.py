"""The layer of an einsum, and the reading of einsum strings that it needs.

A *label* names an axis: a letter of the einsum string or, for an axis that "..." stands for, its
distance from the end of the "..." as a negative int.
"""

from __future__ import annotations

import dataclasses
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
from weft.nn.parameters import NO_METADATA, check_sizes, new_param, optional_param

Label = str | int


@dataclasses.dataclass(frozen=True)
class Contraction:
    """An einsum string of two operands, taken apart.

    Attributes:
      inputs: labels of the layer's inputs, as a string.
      kernel: those of its kernel.
      outputs: those of its outputs.
    """

    inputs: str
    kernel: str
    outputs: str

    @classmethod
    def parse(cls, einsum_str: str) -> Contraction:
        """Reads an einsum string.

        Raises:
          ValueError: if it does not name two operands and an output.
        """
        operands, arrow, outputs = str(einsum_str).replace(" ", "").partition("->")
        inputs, comma, kernel = operands.partition(",")
        if not (isinstance(einsum_str, str) and arrow and comma) or "," in kernel:
            raise ValueError(
                "Einsum expects a string that names inputs, kernel and outputs, such as "
                f"'btd,dhk->bthk', found {einsum_str!r}"
            )
        return cls(inputs, kernel, outputs)

    def __str__(self) -> str:
        return f"{self.inputs},{self.kernel}->{self.outputs}"

    def kernel_sizes(self, shape: tuple[int, ...]) -> dict[Label, int]:
        """Returns the size of each of the kernel's labels.

        Raises:
          ValueError: if a kernel of this shape has another number of axes than labels.
        """
        labels = _expand(self.kernel, len(shape))
        if len(labels) != len(shape):
            raise ValueError(
                f"Einsum({str(self)!r}) names {len(labels)} axes of its kernel, {self.kernel!r}, "
                f"found kernel_shape={shape}: give one size for each label"
            )
        return dict(zip(labels, shape, strict=True))

    def input_sizes(
        self, shape: tuple[int, ...], kernel_sizes: Mapping[Label, int]
    ) -> dict[Label, int]:
        """Returns the size of each label of inputs of a shape.

        Raises:
          ValueError: if they do not fit the kernel.
        """
        labels = _expand(self.inputs, len(shape))
        found = dict(zip(labels, shape, strict=False))
        wrong = [
            f"{label} = {kernel_sizes[label]}"
            for label, size in found.items()
            if isinstance(label, str) and kernel_sizes.get(label, size) != size
        ]
        if wrong or len(labels) != len(shape):
            raise ValueError(
                f"Einsum({str(self)!r}) expects inputs of axes {self.inputs!r}"
                f"{' with ' * bool(wrong)}{', '.join(wrong)}, found shape {shape}: bring the axes "
                "of the inputs into this order, or change einsum_str and kernel_shape"
            )
        return found

    def output_labels(self, *operands: Mapping[Label, int]) -> tuple[Label, ...]:
        """Returns the labels of the outputs for operands with these labels."""
        around = max(sum(isinstance(label, int) for label in sizes) for sizes in operands)
        return _expand(self.outputs, around + len(self.outputs.replace("...", "")))


def _expand(term: str, rank: int) -> tuple[Label, ...]:
    """Returns the labels of an operand of `rank` axes."""
    before, dots, after = term.partition("...")
    around = rank - len(before) - len(after) if dots else 0
    return (*before, *range(-around, 0), *after)


class Einsum(Module):
    """Contracts its inputs with a kernel as an einsum says, and adds a bias.

    Args:
      einsum_str: the contraction, "inputs,kernel->outputs"; may hold "...".
      kernel_shape: shape of the kernel.
      bias_shape: the sizes of the kernel's axes that the outputs have, in the order of the
        outputs; None for no bias.
      dtype: computation dtype; by default what inputs and parameters promote to.
      param_dtype: dtype of the parameters.
      precision: precision of the product, see `jax.lax.Precision`.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      promote_dtype: what casts inputs and parameters to `dtype`.
      einsum_op: what to compute the contraction with, in place of `jax.numpy.einsum`.
      preferred_element_type: dtype in which the product accumulates and is returned.
      rngs: random streams; `params` is used.
      kernel_metadata: keyword metadata of the kernel.
      bias_metadata: keyword metadata of the bias.

    Attributes:
      kernel: Param of shape kernel_shape.
      bias: Param of shape bias_shape, or None.

    Raises:
      ValueError: if `einsum_str` is not of the form above, or the shapes do not fit it.
      TypeError: if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> heads = nnx.Einsum("btd,dhk->bthk", (8, 2, 4), (2, 4), rngs=nnx.Rngs(0))
      >>> heads(jnp.ones((5, 7, 8))).shape
      (5, 7, 2, 4)
    """

    def __init__(
        self,
        einsum_str: str,
        kernel_shape: Sequence[int],
        bias_shape: int | Sequence[int] | None = None,
        *,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        precision: jax.lax.PrecisionLike = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        einsum_op: Callable[..., jax.Array] = jnp.einsum,
        preferred_element_type: dtypes.Dtype | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = NO_METADATA,
        bias_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        check_sizes(self, kernel_shape=kernel_shape)
        kernel_shape = tuple(kernel_shape)
        contraction = Contraction.parse(einsum_str)
        kernel_sizes = contraction.kernel_sizes(kernel_shape)
        if bias_shape is not None:
            bias_shape = (bias_shape,) if isinstance(bias_shape, int) else tuple(bias_shape)
            labels = contraction.output_labels(kernel_sizes)
            expected = tuple(kernel_sizes[label] for label in labels if label in kernel_sizes)
            if math.prod(bias_shape) != math.prod(expected):
                raise ValueError(
                    f"Einsum({einsum_str!r}) with kernel_shape={kernel_shape} expects "
                    f"bias_shape={expected}, the sizes of the kernel's axes that the outputs have, "
                    f"found bias_shape={bias_shape}"
                )
        self.kernel = new_param(self, rngs, kernel_init, kernel_shape, param_dtype, kernel_metadata)
        self.bias = optional_param(
            self, bias_shape is not None, rngs, bias_init, bias_shape, param_dtype, bias_metadata
        )
        self.einsum_str = einsum_str
        self.kernel_shape = kernel_shape
        self.bias_shape = bias_shape
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.promote_dtype = promote_dtype
        self.einsum_op = einsum_op
        self.preferred_element_type = preferred_element_type

    def __call__(
        self, inputs: jax.Array, einsum_str: str | None = None, out_sharding: OutSharding = None
    ) -> jax.Array:
        """Applies the layer.

        Args:
          inputs: array with the axes that the einsum string names.
          einsum_str: another contraction for this call.
          out_sharding: sharding of the result, on a mesh of explicit axes.

        Returns:
          An array with the axes that the einsum string names.

        Raises:
          ValueError: if the inputs do not fit the einsum string and the kernel.
        """
        contraction = Contraction.parse(self.einsum_str if einsum_str is None else einsum_str)
        kernel = self.kernel[...]
        bias = None if self.bias is None else self.bias[...]
        inputs = dtypes.as_array(inputs)
        inputs, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)
        kernel_sizes = contraction.kernel_sizes(kernel.shape)
        input_sizes = contraction.input_sizes(inputs.shape, kernel_sizes)
        outputs = self.einsum_op(
            str(contraction),
            inputs,
            kernel,
            precision=self.precision,
            **given(preferred_element_type=self.preferred_element_type, out_sharding=out_sharding),
        )
        if bias is not None:
            labels = contraction.output_labels(input_sizes, kernel_sizes)
            bias = jnp.reshape(bias, [kernel_sizes.get(label, 1) for label in labels])
        return add_bias(outputs, bias)
