"""Losses of tokens that are spread over devices: each device goes through its own.

Left to the compiler, the sum over devices of the kernel's gradient would be taken for each chunk.
Here it is taken once: the mesh axes that tokens are spread over are mapped by `jax.shard_map`, and
all others are as they were.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, PartitionSpec, get_abstract_mesh

from weft.nn.vocabulary_blocks import Operands

Run = Callable[[Any, Operands, jax.Array, jax.Array], jax.Array]
"""A function of settings, operands, labels and weights."""


def _names(spec: PartitionSpec) -> tuple[str, ...]:
    parts = [axes if isinstance(axes, tuple) else (axes,) for axes in spec if axes is not None]
    return tuple(name for names in parts for name in names)


def spec_of_tokens(hidden: jax.Array, token_axes: Any) -> PartitionSpec | None:
    """Returns how the tokens of an array (tokens..., features) are spread; None if they are not.

    Args:
      hidden: the array.
      token_axes: the axes of the mesh that its first axis is spread over, where it is not said by
        the type of the array, as it is on a mesh of explicit axes.
    """
    if token_axes is not None:
        return PartitionSpec(token_axes)
    mesh = get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    spec = PartitionSpec(*jax.typeof(hidden).sharding.spec[: hidden.ndim - 1])
    are_explicit = all(kinds.get(name) is AxisType.Explicit for name in _names(spec))
    return spec if _names(spec) and are_explicit else None


def over_devices(
    run: Run,
    settings: Any,
    spec: PartitionSpec,
    operands: Operands,
    labels: jax.Array,
    weights: jax.Array,
    *,
    is_sum: bool,
) -> jax.Array:
    """Runs a loss on the tokens of each device.

    Args:
      run: the loss.
      settings: its settings, which can be hashed.
      spec: how the tokens are spread.
      operands: hidden, kernel and bias.
      labels: the labels.
      weights: what each token weighs.
      is_sum: whether the results of devices are to be added; else they are those of its tokens.
    """
    hidden, kernel, bias = operands
    kernel, bias = (None if x is None else _gathered(x, _names(spec)) for x in (kernel, bias))
    mapped = _mapped(run, settings, spec, bias is not None, is_sum, get_abstract_mesh())
    return mapped(hidden, kernel, bias, labels, weights)


def _gathered(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """Returns an array that is whole along some axes of the mesh: at once, not for each chunk."""
    spec = jax.typeof(x).sharding.spec
    kept = [
        tuple(n for n in (axes if isinstance(axes, tuple) else (axes,)) if n not in (None, *names))
        for axes in spec
    ]
    new = PartitionSpec(*(axes or None for axes in kept))
    return x if not {*_names(spec)} & {*names} else jax.sharding.reshard(x, new)


@functools.lru_cache(maxsize=256)
def _mapped(
    run: Run, settings: Any, spec: PartitionSpec, has_bias: bool, is_sum: bool, mesh: Any
) -> Callable[..., jax.Array]:
    names = _names(spec)

    def local(hidden: Any, kernel: Any, bias: Any, labels: Any, weights: Any) -> jax.Array:
        found = run(settings, Operands(hidden, kernel, bias), labels, weights)
        return lax.psum(found, names) if is_sum else found

    whole = PartitionSpec()
    return jax.jit(
        jax.shard_map(
            local,
            in_specs=(spec, whole, whole if has_bias else None, spec, spec),
            out_specs=whole if is_sum else spec,
            axis_names={*names},
        )
    )
