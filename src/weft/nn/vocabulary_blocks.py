"""Logits of a block of the vocabulary, what is summed over it, and the gradient of losses.

A *block* is some columns of the kernel; its logits are in memory, as few or as many as asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import get_abstract_mesh


class Settings(NamedTuple):
    """What is known when a loss is traced.

    Attributes:
      label_smoothing: how much of the target is spread over the vocabulary.
      z_loss: the factor of the squared normaliser.
      logit_cap: where logits level off, or None.
      transposed: whether the kernel is (vocabulary, features).
      dtype: of the factors of products.
      wide: of logits, sums and losses.
      precision: of products.
      chunks: how many chunks of tokens; until that is known, of what size.
      block: how many columns of logits at a time.
      axis_name: the mapped axis that the vocabulary is spread over, or None.
    """

    label_smoothing: float
    z_loss: float
    logit_cap: float | None
    transposed: bool
    dtype: Any
    wide: Any
    precision: Any
    chunks: int
    block: int
    axis_name: str | None


class Operands(NamedTuple):
    """What is differentiated: hidden (..., features), kernel, and bias (vocabulary) or None."""

    hidden: jax.Array
    kernel: jax.Array
    bias: jax.Array | None


class Normaliser(NamedTuple):
    """Of each token: the largest logit, the sum of exponentials, the label's logit, and the sum."""

    largest: jax.Array
    exponentials: jax.Array
    label: jax.Array
    total: jax.Array


# -- devices


def axes_of(*arrays: Any) -> frozenset[str]:
    """Returns the mapped axes that arrays differ along, as far as JAX knows."""
    kinds = [getattr(jax.typeof(x), "manual_axis_type", None) for x in arrays if x is not None]
    return frozenset().union(*(kind.varying for kind in kinds if kind is not None))


def varying(x: Any, axes: frozenset[str]) -> Any:
    """Returns an array as one that differs along mapped axes; None stays None."""
    missing = axes - axes_of(x)
    return lax.pcast(x, tuple(sorted(missing)), to="varying") if missing and x is not None else x


def varying_as(x: Any, *others: Any) -> Any:
    """Returns an array as one that differs along the mapped axes of others."""
    return varying(x, axes_of(*others))


# -- blocks


def dot(x: jax.Array, y: jax.Array, axes: tuple[Any, Any], settings: Settings) -> jax.Array:
    """Returns the product of arrays that are summed over axes of each, in the wide dtype."""
    x, y = x.astype(settings.dtype), y.astype(settings.dtype)
    if settings.dtype == jnp.float16 and jax.default_backend() == "cpu":
        x, y = x.astype(jnp.float32), y.astype(jnp.float32)  # XLA has no such product for CPUs
    dimensions = (axes, ((), ()))
    wide = settings.wide
    return lax.dot_general(
        x, y, dimensions, precision=settings.precision, preferred_element_type=wide
    )


class Block(NamedTuple):
    """Columns of the kernel from `start`; those before `fresh` were in the block before."""

    kernel: jax.Array
    bias: jax.Array | None
    start: Any
    fresh: Any


def own_vocabulary(kernel: jax.Array, settings: Settings) -> int:
    """Returns how many columns a kernel has, on this device."""
    return kernel.shape[0 if settings.transposed else 1]


def blocks_of(operands: Operands, settings: Settings) -> tuple[int, Callable[[Any], Block]]:
    """Returns how many blocks there are, and a function that returns one by its number."""
    _, kernel, bias = operands
    vocabulary = own_vocabulary(kernel, settings)
    size = min(settings.block, vocabulary)
    if size == vocabulary:
        return 1, lambda i: Block(kernel, bias, 0, None)

    def block(i: Any) -> Block:
        # The last one begins earlier, lest the kernel have to be padded, which is a copy of it.
        fresh = jnp.asarray(i * size, jnp.int32)
        start = jnp.minimum(fresh, vocabulary - size)
        axis = 0 if settings.transposed else 1
        columns = lax.dynamic_slice_in_dim(kernel, start, size, axis)
        part = None if bias is None else lax.dynamic_slice_in_dim(bias, start, size, 0)
        return Block(columns, part, start, fresh)

    return -(-vocabulary // size), block


def logits_of(hidden: jax.Array, block: Block, settings: Settings) -> jax.Array:
    """Returns the logits of a block, of shape (tokens..., columns)."""
    contracted = 1 if settings.transposed else 0
    logits = dot(hidden, block.kernel, ((hidden.ndim - 1,), (contracted,)), settings)
    if block.bias is not None:
        logits = logits + block.bias.astype(settings.wide)
    if settings.logit_cap is not None:
        logits = settings.logit_cap * jnp.tanh(logits / settings.logit_cap)
    return logits


def _columns(logits: jax.Array) -> jax.Array:
    return lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)


def _is_label(logits: jax.Array, labels: jax.Array, block: Block) -> jax.Array:
    return _columns(logits) == (labels - block.start)[..., None]


def _masked(logits: jax.Array, block: Block, fill: float) -> jax.Array:
    """Replaces the columns that the block before had as well."""
    if block.fresh is None:
        return logits
    return jnp.where(_columns(logits) >= block.fresh - block.start, logits, fill)


def no_block(labels: jax.Array, like: tuple[jax.Array, ...], settings: Settings) -> Normaliser:
    """Returns what is known before the first block, as arrays that differ as others do."""
    zeros = varying_as(jnp.zeros(labels.shape, settings.wide), *like)
    return Normaliser(zeros - math.inf, zeros, zeros, zeros)


def with_block(
    known: Normaliser, logits: jax.Array, labels: jax.Array, block: Block, settings: Settings
) -> Normaliser:
    """Returns what is known after one more block."""
    present = _masked(logits, block, -math.inf)
    highest = jnp.max(lax.stop_gradient(present), -1)
    largest = jnp.maximum(known.largest, highest)
    shift = jnp.where(jnp.isfinite(largest), largest, 0.0)  # where every logit is minus infinity
    exponentials = known.exponentials * jnp.exp(known.largest - shift)
    exponentials = exponentials + jnp.sum(jnp.exp(present - shift[..., None]), -1)
    if block.fresh is None and get_abstract_mesh().empty:
        label = jnp.take_along_axis(logits, labels[..., None], -1, mode="clip")[..., 0]
    else:  # devices look up what they have: a gather might bring all logits to all of them
        chosen = _is_label(logits, labels, block)
        label = known.label + jnp.sum(_masked(jnp.where(chosen, logits, 0.0), block, 0.0), -1)
    total = known.total
    if settings.label_smoothing:
        total = total + jnp.sum(_masked(logits, block, 0.0), -1)
    return Normaliser(largest, exponentials, label, total)


def losses_of(
    known: Normaliser, kernel: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
    """Returns the losses, and the logarithms of the normalisers."""
    largest, exponentials, label, total = known
    vocabulary = own_vocabulary(kernel, settings)
    if settings.axis_name is not None:
        vocabulary *= lax.axis_size(settings.axis_name)
        local, largest = largest, lax.pmax(largest, settings.axis_name)
        exponentials = exponentials * jnp.exp(local - largest)
        exponentials, label, total = lax.psum((exponentials, label, total), settings.axis_name)
    log = largest + jnp.log(exponentials)
    losses = log - (1 - settings.label_smoothing) * label
    if settings.label_smoothing:
        losses = losses - settings.label_smoothing / vocabulary * total
    if settings.z_loss:
        losses = losses + settings.z_loss * jnp.square(log)
    return losses, log


def slope_of(
    logits: jax.Array,
    labels: jax.Array,
    log: jax.Array,
    weights: jax.Array,
    block: Block,
    kernel: jax.Array,
    settings: Settings,
) -> jax.Array:
    """Returns the gradient of the weighted losses with respect to the product of a block."""
    share = (1 + 2 * settings.z_loss * log) * weights
    slope = jnp.exp(logits - log[..., None]) * share[..., None]
    smoothing = settings.label_smoothing
    chosen = _is_label(logits, labels, block)
    slope = slope - jnp.where(chosen, ((1 - smoothing) * weights)[..., None], 0.0)
    if smoothing:
        vocabulary = own_vocabulary(kernel, settings)
        if settings.axis_name is not None:
            vocabulary *= lax.axis_size(settings.axis_name)
        slope = slope - (smoothing / vocabulary * weights)[..., None]
    if settings.logit_cap is not None:
        slope = slope * (1 - jnp.square(logits / settings.logit_cap))
    return _masked(slope, block, 0.0)
