"""Giving low-rank adapters to the layers of a model that exists.

A layer is adapted in place: its class changes to a subclass of the one it had, and it gains the
attribute `lora`. So its weights keep their paths, which checkpoints rely on, whoever refers to the
layer refers to the adapted one, and `layer.kernel` stays what it was.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from weft._core.filters import Filter, to_predicate
from weft._core.path import Path, format_path
from weft._graph.iterate import iter_graph
from weft._module import Module
from weft._rng import Rngs
from weft._variable.metadata import axis_names, with_axis_names
from weft._variable.types import Param
from weft.nn import dtypes
from weft.nn.conv import Conv, convolve
from weft.nn.einsum import Contraction, Einsum
from weft.nn.initializers import Initializer
from weft.nn.linear import Linear, LinearGeneral, OutSharding, input_axes
from weft.nn.lora import (
    KernelAxes,
    LoRA,
    LoRALinear,
    LoRAParam,
    add_change,
    contract,
    default_a_initializer,
    default_b_initializer,
    expand,
    factors,
    scaled,
)

M = TypeVar("M", bound=Module)

# Facts about placement that an adapter takes over from the kernel it changes.
_PLACEMENT = ("mesh", "sharding_rules")


class LoRALinearGeneral(LinearGeneral):
    """A LinearGeneral with a low-rank adapter, as `lora` makes it."""

    lora: LoRA

    def __call__(self, inputs: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Applies the layer and its adapter; see `LinearGeneral`."""
        outputs = super().__call__(inputs, out_sharding)
        inputs, a, b = factors(self.lora, inputs)
        _, axes = input_axes(self, inputs.shape)
        contracted = contract(self.lora, inputs, a, axes)
        return add_change(outputs, expand(self.lora, contracted, b, out_sharding))

    def kernel_axes(self) -> KernelAxes:
        """Returns what the axes of the kernel are for."""
        batch = tuple(self.batch_axis[axis] for axis in range(len(self.batch_axis)))
        shape = batch + self.in_features + self.out_features
        axes = tuple(range(len(shape)))
        first, last = len(batch), len(shape) - len(self.out_features)
        return KernelAxes(shape, axes[:first], axes[first:last], axes[last:])


class LoRAEinsum(Einsum):
    """An Einsum with a low-rank adapter, as `lora` makes it."""

    lora: LoRA

    def __call__(
        self, inputs: jax.Array, einsum_str: str | None = None, out_sharding: OutSharding = None
    ) -> jax.Array:
        """Applies the layer and its adapter; see `Einsum`."""
        outputs = super().__call__(inputs, einsum_str, out_sharding)
        inputs, a, b = factors(self.lora, inputs)
        contraction = Contraction.parse(self.einsum_str if einsum_str is None else einsum_str)
        batch, ins, outs = (
            "".join(contraction.kernel[axis] for axis in axes) for axes in _roles(contraction)
        )
        rank = next(letter for letter in string.ascii_letters if letter not in str(contraction))
        between = "".join(label for label in contraction.inputs if label not in ins) + rank
        contracted = jnp.einsum(f"{contraction.inputs},{batch}{ins}{rank}->{between}", inputs, a)
        change = jnp.einsum(
            f"{between},{batch}{rank}{outs}->{contraction.outputs}",
            contracted,
            b,
            out_sharding=out_sharding,
        )
        return add_change(outputs, scaled(self.lora, change))

    def kernel_axes(self) -> KernelAxes:
        """Returns what the axes of the kernel are for.

        Raises:
          ValueError: if the einsum string is not that of a product without broadcasting or sums.
        """
        return KernelAxes(self.kernel_shape, *_roles(Contraction.parse(self.einsum_str)))


def _roles(contraction: Contraction) -> tuple[tuple[int, ...], ...]:
    """Returns the kernel's batch axes, contracted axes and new axes."""
    roles: dict[tuple[bool, bool], tuple[int, ...]] = {}
    for axis, label in enumerate(contraction.kernel):
        role = (label in contraction.inputs, label in contraction.outputs)
        roles[role] = (*roles.get(role, ()), axis)
    if "." in contraction.kernel or (False, False) in roles:
        raise ValueError(
            f"Einsum({str(contraction)!r}) cannot be adapted, because its kernel has axes that are "
            "broadcast or that neither inputs nor outputs have: leave it out, or write it with one "
            "letter for each axis"
        )
    return tuple(roles.get(role, ()) for role in ((True, True), (True, False), (False, True)))


class LoRAConv(Conv):
    """A Conv with a low-rank adapter, as `lora` makes it: a convolution, then a pointwise one."""

    lora: LoRA

    def __call__(self, inputs: jax.Array, out_sharding: OutSharding = None) -> jax.Array:
        """Applies the layer and its adapter; see `Conv`."""
        outputs = super().__call__(inputs, out_sharding)
        inputs, a, b = factors(self.lora, inputs)
        contracted = convolve(self, inputs, a, None)
        return add_change(outputs, expand(self.lora, contracted, b, out_sharding))

    def kernel_axes(self) -> KernelAxes:
        """Returns what the axes of the kernel are for.

        Raises:
          ValueError: if the layer has groups or a mask.
        """
        if self.feature_group_count != 1 or self.mask is not None:
            raise ValueError(
                "a Conv with groups or a mask cannot be adapted, found "
                f"feature_group_count={self.feature_group_count} and "
                f"{'a' if self.mask is not None else 'no'} mask: leave it out"
            )
        axes = tuple(range(len(self.kernel_shape)))
        return KernelAxes(self.kernel_shape, (), axes[:-1], axes[-1:])


_ADAPTED: dict[type[Module], Any] = {
    Linear: LoRALinear,
    LinearGeneral: LoRALinearGeneral,
    Einsum: LoRAEinsum,
    Conv: LoRAConv,
}


def lora(
    model: M,
    filter: Filter = ...,
    rank: int = 8,
    *,
    rngs: Rngs,
    alpha: float | None = None,
    dtype: dtypes.Dtype | None = None,
    param_dtype: dtypes.Dtype = jnp.float32,
    a_initializer: Initializer = default_a_initializer,
    b_initializer: Initializer = default_b_initializer,
    lora_param_type: type[Param] = LoRAParam,
) -> M:
    """Gives low-rank adapters to layers of a model, in place (Hu et al. 2021, arXiv:2106.09685).

    `Linear`, `LinearGeneral`, `Einsum` and `Conv` layers can be adapted, also stacked ones, whose
    kernels have leading axes more. At first the adapters change nothing. Factors get the kernel's
    sharding metadata for the axes they have in common with it.

    Args:
      model: the model.
      filter: which layers: a filter on (path, layer), such as `nnx.Linear` or
        `nnx.PathContains("attention")`; layers of other kinds are passed over.
      rank: the rank of the adapters.
      rngs: random streams; two keys of `params` are used for each layer.
      alpha: if given, the change is multiplied by alpha / rank.
      dtype: computation dtype of the adapters; by default that of each layer.
      param_dtype: dtype of the factors.
      a_initializer: initializer of `lora_a`, called with the shape of a matrix.
      b_initializer: likewise, of `lora_b`.
      lora_param_type: Variable type of the factors.

    Returns:
      The model itself.

    Raises:
      ValueError: if no layer is meant, or if one cannot be adapted; then none is.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs))
      >>> model = nnx.lora(model, nnx.Linear, rank=2, rngs=rngs)
      >>> [leaf.shape for leaf in nnx.variables(model, nnx.LoRAParam).flat_state().leaves]
      [(3, 2), (2, 5), (5, 2), (2, 2)]
    """
    chosen = _chosen(model, filter)
    adapters = []
    for path, layer in chosen:
        try:
            adapters.append(
                _adapter_of(
                    layer,
                    rank,
                    rngs=rngs,
                    dtype=layer.dtype if dtype is None else dtype,
                    param_dtype=param_dtype,
                    a_initializer=a_initializer,
                    b_initializer=b_initializer,
                    lora_param_type=lora_param_type,
                    scale=1.0 if alpha is None else alpha / rank,
                )
            )
        except ValueError as error:
            raise ValueError(f"cannot adapt {_name_of(path, layer)}: {error}") from error
    for (_, layer), adapter in zip(chosen, adapters, strict=True):
        layer.__class__ = _ADAPTED[type(layer)]
        layer.lora = adapter
    return model


def _chosen(model: Any, filter: Filter) -> list[tuple[Path, Any]]:
    """Returns paths and layers that the filter means and that have no adapter yet."""
    predicate = to_predicate(filter)
    layers = [
        (path, layer)
        for path, layer in iter_graph(model)
        if isinstance(layer, (*_ADAPTED, *_ADAPTED.values()))
    ]
    chosen = [(path, layer) for path, layer in layers if predicate(path, layer)]
    for path, layer in chosen:
        if type(layer) in _ADAPTED:
            continue
        name = _name_of(path, layer)
        if isinstance(layer, tuple(_ADAPTED.values())):
            raise ValueError(
                f"{name} has an adapter already: leave it out, for example by "
                "`nnx.All(filter, lambda path, layer: not hasattr(layer, 'lora'))`"
            )
        raise ValueError(
            f"{name} cannot be adapted, because its class changes what "
            f"{type(layer).__mro__[1].__name__} computes: leave it out with "
            f"`nnx.All(filter, nnx.Not({type(layer).__name__}))`"
        )
    if not chosen:
        listed = "\n".join(f"  {_name_of(path, layer)}" for path, layer in layers[:8])
        found = f"the model has\n{listed}" if listed else "the model has none"
        raise ValueError(
            f"the filter {filter!r} means no layer that can be adapted; of "
            f"{', '.join(kind.__name__ for kind in _ADAPTED)} layers {found}"
        )
    return chosen


def _adapter_of(layer: Any, rank: int, **options: Any) -> LoRA:
    """Returns an adapter for a layer.

    Raises:
      ValueError: if the layer's kernel does not fit the layer or its sharding metadata.
    """
    axes: KernelAxes = _ADAPTED[type(layer)].kernel_axes(layer)
    kernel = layer.kernel
    shape = tuple(kernel[...].shape)
    stacked = len(shape) - len(axes.shape)
    if stacked < 0 or shape[stacked:] != axes.shape:
        raise ValueError(
            f"expected a kernel of shape {axes.shape}, or a stack of such kernels along leading "
            f"axes, found shape {shape}: move the axes that stack the layers to the front"
        )
    stack = tuple(range(stacked))
    batch, ins, outs = (tuple(stacked + axis for axis in part) for part in axes[1:])
    if not (ins and outs):
        raise ValueError(
            "its kernel is no matrix: a low-rank change needs axes that are contracted and axes "
            "that are new; leave the layer out"
        )
    metadata_a, metadata_b = _placement(kernel, len(shape), (*stack, *batch), ins, outs)
    return LoRA(
        _plain([shape[axis] for axis in ins]),
        rank,
        _plain([shape[axis] for axis in outs]),
        batch_shape=[shape[axis] for axis in (*stack, *batch)],
        a_metadata=metadata_a,
        b_metadata=metadata_b,
        **options,
    )


def _plain(features: Sequence[int]) -> int | tuple[int, ...]:
    return features[0] if len(features) == 1 else tuple(features)


def _placement(
    kernel: Param, rank: int, batch: tuple[int, ...], ins: tuple[int, ...], outs: tuple[int, ...]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the sharding metadata of the factors; the axis between them is not sharded."""
    spec = kernel.get_metadata("out_sharding", None)
    if spec is None:
        return {}, {}
    names = axis_names(spec)
    if len(names) > rank:
        raise ValueError(
            f"its kernel has {rank} axes, but out_sharding={spec!r} names {len(names)}: give one "
            "name, or None, for each axis"
        )
    names += (None,) * (rank - len(names))
    a = (*(names[axis] for axis in (*batch, *ins)), None)
    b = (*(names[axis] for axis in batch), None, *(names[axis] for axis in outs))
    metadata = kernel.get_metadata()
    kept = {name: metadata[name] for name in _PLACEMENT if name in metadata}
    return (
        {"out_sharding": with_axis_names(spec, a), **kept},
        {"out_sharding": with_axis_names(spec, b), **kept},
    )


def _name_of(path: Path, layer: object) -> str:
    return f"{type(layer).__name__} at {format_path(path, 'model')}"
