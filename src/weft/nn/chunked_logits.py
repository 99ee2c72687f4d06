"""Losses of `hidden @ kernel` in chunks of tokens and blocks of the vocabulary.

The logits of one chunk are in memory at a time. Two functions of JAX with rules of their own:

- `summed`, the sum of the losses times weights. Its gradients are worked out together with it,
  while the logits of a chunk are there: three products, as the plain way has, and no logit twice.
  In the backward pass they are multiplied by one number.
- `each`, the losses. What each weighs is known in the backward pass only, so the logits are
  computed again there, unless there is one chunk: then it is kept.

Where the vocabulary is cut as well, the normaliser is known after the last block only, and `summed`
computes the logits twice too.

Labels below zero mark tokens that do not count. A chunk takes every n-th token, so that each device
has its part of each chunk where tokens are spread over devices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, get_abstract_mesh

from weft.nn.vocabulary_blocks import (
    Block,
    Normaliser,
    Operands,
    Settings,
    axes_of,
    blocks_of,
    dot,
    logits_of,
    losses_of,
    no_block,
    own_vocabulary,
    slope_of,
    varying_as,
    with_block,
)

# -- chunks of tokens


def number_of_chunks(tokens: tuple[int, ...], size: int) -> int:
    """Returns how many chunks of about `size` tokens: one that divides the last axis, if any."""
    least = max(1, -(-math.prod(tokens) // size))
    last = tokens[-1] if least <= tokens[-1] else math.prod(tokens)
    return next((n for n in range(least, min(2 * least, last) + 1) if last % n == 0), least)


def _split(x: jax.Array, tokens: tuple[int, ...], chunks: int, fill: int = 0) -> jax.Array:
    """Returns (chunks, tokens of a chunk..., rest...) of an array (tokens..., rest...)."""
    rest = x.shape[len(tokens) :]
    if chunks > tokens[-1]:  # short sequences
        x, tokens = x.reshape(-1, *rest), (math.prod(tokens),)
    axis, missing = len(tokens) - 1, -tokens[-1] % chunks
    if missing:
        widths = [(0, missing if i == axis else 0) for i in range(x.ndim)]
        x = jnp.pad(x, widths, constant_values=fill)
    x = x.reshape(*x.shape[:axis], x.shape[axis] // chunks, chunks, *rest)
    return jnp.moveaxis(x, axis + 1, 0)


def _join(x: jax.Array, tokens: tuple[int, ...], lead: int) -> jax.Array:
    """Returns (tokens..., rest...) of what `_split` made, given how many axes a chunk has."""
    rest = x.shape[1 + lead :]
    x = jnp.moveaxis(x, 0, lead)
    x = x.reshape(*x.shape[: lead - 1], -1, *rest)
    if lead != len(tokens):
        return x[: math.prod(tokens)].reshape(*tokens, *rest)
    return lax.slice_in_dim(x, 0, tokens[-1], axis=lead - 1)


# -- one chunk


def _own_labels(labels: jax.Array, kernel: jax.Array, settings: Settings) -> jax.Array:
    """Returns which column of this device a label is; one outside of them is another device's."""
    if settings.axis_name is None:
        return labels
    return labels - lax.axis_index(settings.axis_name) * own_vocabulary(kernel, settings)


def _counted(hidden: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns zeros for the tokens that do not count, which may be NaN."""
    return jnp.where((labels >= 0)[..., None], hidden, jnp.zeros_like(hidden))


def _normalise(
    operands: Operands, labels: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Returns losses, logarithms of normalisers, and the logits where they are one block."""
    hidden, kernel, _ = operands
    own = _own_labels(labels, kernel, settings)
    count, block = blocks_of(operands, settings)
    first = no_block(labels, (hidden, kernel, own), settings)

    def add(i: Any, known: Normaliser) -> Normaliser:
        logits = logits_of(hidden, block(i), settings)
        return with_block(known, logits, own, block(i), settings)

    if count > 1:
        known, logits = lax.fori_loop(0, count, add, first), None
    else:
        logits = logits_of(hidden, block(0), settings)
        known = with_block(first, logits, own, block(0), settings)
    losses, log = losses_of(known, kernel, settings)
    return jnp.where(labels >= 0, losses, 0.0), log, logits


def _differentiate(
    operands: Operands,
    labels: jax.Array,
    log: jax.Array,
    weights: jax.Array,
    logits: jax.Array | None,
    sums: tuple[jax.Array, jax.Array | None],
    settings: Settings,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None]]:
    """Returns the gradient of a chunk's hidden, and sums of kernels and biases with theirs added.

    Args:
      operands: of the chunk.
      labels: its labels.
      log: logarithms of the normalisers.
      weights: what each loss weighs.
      logits: those of the only block, or None.
      sums: gradients of kernel and bias so far.
      settings: the settings.
    """
    hidden, kernel, bias = operands
    own = _own_labels(labels, kernel, settings)
    weights = jnp.where(labels >= 0, weights, 0.0)
    count, block = blocks_of(operands, settings)
    lead = tuple(range(hidden.ndim - 1))
    axis = 0 if settings.transposed else 1

    def slope_at(at: Block, logits: jax.Array) -> jax.Array:
        return slope_of(logits, own, log, weights, at, kernel, settings)

    def parts(at: Block, slope: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        to_hidden = dot(slope, at.kernel, ((hidden.ndim - 1,), (axis,)), settings)
        left, right = (slope, hidden) if settings.transposed else (hidden, slope)
        to_kernel = dot(left, right, (lead, lead), settings)
        return to_hidden, to_kernel, None if bias is None else jnp.sum(slope, lead)

    if count == 1:
        logits = logits_of(hidden, block(0), settings) if logits is None else logits
        to_hidden, to_kernel, to_bias = parts(block(0), slope_at(block(0), logits))
        if settings.chunks == 1:  # an array of the kernel's size less to go through
            return to_hidden, (to_kernel, to_bias)
        return to_hidden, jax.tree.map(jnp.add, sums, (to_kernel, to_bias))

    def add(i: Any, carry: Any) -> Any:
        to_hidden, sums = carry
        at = block(i)
        more, *found = parts(at, slope_at(at, logits_of(hidden, at, settings)))
        axes = (axis, None if bias is None else 0)

        def put(axis: int, total: jax.Array, new: jax.Array) -> jax.Array:
            old = lax.dynamic_slice_in_dim(total, at.start, new.shape[axis], axis)
            return lax.dynamic_update_slice_in_dim(total, old + new, at.start, axis)

        return to_hidden + more, jax.tree.map(put, axes, sums, tuple(found))

    zeros = varying_as(jnp.zeros(hidden.shape, settings.wide), hidden, kernel, own, weights)
    return lax.fori_loop(0, count, add, (zeros, sums))


# -- all chunks


def _placed(f: Callable[..., Any], *args: Any, outputs: Callable[..., Any]) -> Any:
    """Calls a function whose inside JAX partitions as it likes, also on a mesh of explicit axes.

    Args:
      f: the function.
      *args: its arguments.
      outputs: given the arguments, returns the arrays whose places the results are to have.
    """
    mesh = get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    axes = tuple(name for name, kind in kinds if kind is AxisType.Explicit)
    if not axes:
        return f(*args)
    specs = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, outputs(*args))
    return jax.sharding.auto_axes(f, axes=axes, out_sharding=specs)(*args)


def _over_chunks(f: Callable[..., Any], carry: Any, xs: Any, settings: Settings) -> Any:
    """As `lax.scan` over chunks, which a single one needs not."""
    if settings.chunks > 1:
        return lax.scan(f, carry, xs)
    carry, ys = f(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], ys)


def _cut(settings: Settings, labels: jax.Array, **arrays: Any) -> tuple[int, dict[str, Any]]:
    """Returns how many axes the tokens of a chunk have, and arrays of tokens cut into chunks."""
    tokens = labels.shape
    found = {name: _split(x, tokens, settings.chunks) for name, x in arrays.items()}
    found["labels"] = _split(labels, tokens, settings.chunks, fill=-1)
    return found["labels"].ndim - 1, found


@functools.partial(jax.jit, static_argnums=0)
def _forward(
    settings: Settings, operands: Operands, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Returns losses, logarithms of normalisers, and the logits where there is but one chunk."""
    hidden, kernel, bias = operands
    lead, cut = _cut(settings, labels, hidden=hidden)

    def step(carry: None, x: dict[str, jax.Array]) -> Any:
        chunk = Operands(_counted(x["hidden"], x["labels"]), kernel, bias)
        losses, log, logits = _normalise(chunk, x["labels"], settings)
        return carry, (losses, log, logits if settings.chunks == 1 else None)

    _, (losses, log, logits) = _over_chunks(step, None, cut, settings)
    losses, log = (_join(x, labels.shape, lead) for x in (losses, log))
    return losses, log, logits


@functools.partial(jax.jit, static_argnums=0)
def _both_passes(
    settings: Settings,
    operands: Operands,
    labels: jax.Array,
    weights: jax.Array,
    log: jax.Array | None,
    logits: jax.Array | None,
) -> tuple[jax.Array | None, Operands]:
    """Returns the losses and the gradients of their weighted sum.

    Args:
      settings: the settings.
      operands: what is differentiated.
      labels: the labels.
      weights: what each loss weighs.
      log: logarithms of the normalisers, if they are known: then no losses are returned.
      logits: those of the only chunk, if they are known.
    """
    hidden, kernel, bias = operands
    scale = None
    if settings.dtype == jnp.float16:  # in which what a loss weighs in a mean may be too small
        scale = jnp.max(lax.stop_gradient(jnp.abs(weights)))
        scale = jnp.where(scale == 0, 1.0, scale)
        weights = weights / scale
    known = {} if log is None else {"log": log}
    lead, cut = _cut(settings, labels, hidden=hidden, weights=weights, **known)
    like = (hidden, kernel, labels, weights)
    zeros = lambda x: varying_as(jnp.zeros(x.shape, settings.wide), *like)  # noqa: E731
    sums = (zeros(kernel), None if bias is None else zeros(bias))

    def step(sums: Any, x: dict[str, jax.Array]) -> Any:
        chunk = Operands(_counted(x["hidden"], x["labels"]), kernel, bias)
        if log is None:
            losses, at, found = _normalise(chunk, x["labels"], settings)
        else:
            losses, at, found = None, x["log"], None if logits is None else logits[0]
        given = (chunk, x["labels"], at, x["weights"], found)
        to_hidden, sums = _differentiate(*given, sums, settings)
        return sums, (losses, to_hidden)

    sums, found = _over_chunks(step, sums, cut, settings)
    losses, to_hidden = jax.tree.map(lambda x: _join(x, labels.shape, lead), found)
    gradients = Operands(to_hidden, *sums)
    return losses, gradients if scale is None else jax.tree.map(lambda x: x * scale, gradients)


def _scaled(by: jax.Array | None, gradients: Operands, like: Operands) -> Operands:
    """Returns gradients as the operands are: in their dtypes."""

    def scale(gradient: jax.Array, x: jax.Array) -> jax.Array:
        gradient = gradient if by is None else gradient * by
        return gradient.astype(x.dtype)

    return jax.tree.map(scale, gradients, like)


def _from_all(cotangent: jax.Array, settings: Settings, kernel: jax.Array) -> jax.Array:
    """Returns the cotangent of a loss that devices work out together.

    Where JAX does not follow what differs along mapped axes (`check_vma=False`) each device has a
    part of it, as for any `lax.psum`.
    """
    name = settings.axis_name
    return cotangent if name is None or name in axes_of(kernel) else lax.psum(cotangent, name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def each(settings: Settings, operands: Operands, labels: jax.Array) -> jax.Array:
    """Returns the loss of each token, 0 where its label is negative."""
    return _each_forward(settings, operands, labels)[0]


def _each_forward(settings: Settings, operands: Operands, labels: jax.Array) -> Any:
    def run(operands: Operands, labels: jax.Array) -> Any:
        return _forward(settings, operands, labels)

    # The logits of a chunk are of no interest on a mesh of explicit axes, where they need a place.
    if AxisType.Explicit in get_abstract_mesh().axis_types:
        losses, log = _placed(
            lambda *args: run(*args)[:2], operands, labels, outputs=lambda o, y: (y, y)
        )
        return losses, (operands, labels, log, None)
    losses, log, logits = run(operands, labels)
    return losses, (operands, labels, log, logits)


def _each_backward(settings: Settings, kept: Any, weights: jax.Array) -> Any:
    operands, labels, log, logits = kept
    weights = _from_all(weights, settings, operands.kernel)

    def run(operands: Operands, *args: Any) -> Operands:
        _, gradients = _both_passes(settings, operands, *args, logits)
        return _scaled(None, gradients, operands)

    arguments = (operands, labels, weights, log)
    return _placed(run, *arguments, outputs=lambda operands, *_: operands), None


each.defvjp(_each_forward, _each_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def summed(
    settings: Settings, operands: Operands, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """Returns the sum of the losses times weights."""
    run = lambda operands, labels: _forward(settings, operands, labels)[0]  # noqa: E731
    losses = _placed(run, operands, labels, outputs=lambda operands, labels: labels)
    return jnp.sum(losses * weights)


def _summed_forward(
    settings: Settings, operands: Operands, labels: jax.Array, weights: jax.Array
) -> Any:
    def run(operands: Operands, labels: jax.Array, weights: jax.Array) -> Any:
        return _both_passes(settings, operands, labels, weights, None, None)

    arguments = (operands, labels, weights)
    losses, gradients = _placed(run, *arguments, outputs=lambda o, y, w: (y, o))
    dtypes = jax.tree.map(lambda x: jnp.zeros((), x.dtype), operands)
    return jnp.sum(losses * weights), (gradients, dtypes, losses)


def _summed_backward(settings: Settings, kept: Any, by: jax.Array) -> Any:
    gradients, dtypes, losses = kept
    of_operands = _from_all(by, settings, gradients.kernel)
    return _scaled(of_operands, gradients, dtypes), None, losses * by


summed.defvjp(_summed_forward, _summed_backward)
