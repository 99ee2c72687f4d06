"""The loss of a last linear layer over a large vocabulary, without its logits in memory."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import get_abstract_mesh

from weft._module import Pytree
from weft._variable.variable import Variable
from weft.nn.chunked_logits import each, number_of_chunks, summed
from weft.nn.dtypes import Dtype, as_array, canonicalize_dtype
from weft.nn.parameters import check_sizes
from weft.nn.token_shards import over_devices, spec_of_tokens
from weft.nn.vocabulary_blocks import Operands, Settings, axes_of, varying

Reduction = Literal["mean", "sum", "none"]
_NAME = "linear_cross_entropy"


def linear_cross_entropy(
    hidden: Any,
    kernel: Any,
    labels: Any,
    bias: Any = None,
    *,
    weights: Any = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    logit_cap: float | None = None,
    transposed: bool = False,
    dtype: Dtype | None = None,
    precision: lax.PrecisionLike = None,
    chunk_size: int | None = None,
    vocab_chunk_size: int | None = None,
    axis_name: str | None = None,
    token_axes: str | tuple[str, ...] | None = None,
) -> jax.Array:
    """Returns the cross entropy of the logits `hidden @ kernel + bias`, which are never all there.

    The logits of a large vocabulary are the largest arrays of a language model by far. Here those
    of one chunk of tokens are in memory at a time, and the gradients are worked out while they are
    there, as the sums over chunks that they are. Losses without logits in memory are the subject of
    Wijmans et al., 2024, "Cut Your Losses in Large-Vocabulary Language Models"
    (https://arxiv.org/abs/2411.09009); the z-loss is that of Chowdhery et al., 2022, "PaLM"
    (https://arxiv.org/abs/2204.02311).

    What it costs: with `reduction` "mean" or "sum" three products, as the plain way, and beside the
    gradients of `hidden` and `kernel` in float32 the logits of a chunk. With "none", where each
    loss may get a cotangent of its own, four products, unless there is but one chunk; and four with
    `vocab_chunk_size`. A value without gradients costs one product in any case.

    Gradients may be differentiated again (`jax.grad` of `jax.grad`, `jax.hessian`); the loss itself
    has no forward mode (`jax.jvp`).

    Args:
      hidden: array of shape (..., features).
      kernel: array or Variable of shape (features, vocabulary), as `nnx.Linear` has it.
      labels: integers of shape (...), the right columns. One outside of the vocabulary that is
        not `ignore_index` makes loss and gradients NaN.
      bias: array or Variable of shape (vocabulary,), or None.
      weights: what each token counts, of shape (...) or one that broadcasts to it; booleans for
        a mask. What counts nothing may be NaN in `hidden`; so a weight of 0 has no gradient.
      reduction: "mean", the mean over what counts, by weights, and 0 where nothing does; "sum"; or
        "none" for the loss of each token, times its weight.
      ignore_index: tokens with this label count nothing.
      label_smoothing: how much of the target is spread evenly over the vocabulary.
      z_loss: the factor of the square of the logits' `logsumexp`, which keeps it near 0.
      logit_cap: logits are `logit_cap * tanh(logits / logit_cap)` first.
      transposed: whether `kernel` is (vocabulary, features), as the table of an `nnx.Embed`.
      dtype: the dtype of the factors of products, by default what `hidden` and `kernel` promote to.
        Products, sums and the result are in float32 at least.
      precision: the precision of products.
      chunk_size: about how many tokens a chunk has. By default 1024, and 2048 for more than 1024
        features: the gradient of the kernel is gone through once for each chunk, which takes little
        time beside so many logits. Chunks are of one length, and together few tokens longer than
        all.
      vocab_chunk_size: how many columns of the vocabulary to go through at a time; by default all.
        Not for kernels whose vocabulary is spread over devices.
      token_axes: on a mesh of automatic axes, those that the first axis of `hidden` is spread over;
        explicit axes are known. The devices then add up the gradient of the kernel once, not once
        for each chunk, and bring kernels together that are spread over the same axes.
      axis_name: inside `jax.shard_map`, the axis that the vocabulary is spread over: `kernel` and
        `bias` are this device's part, `labels` and `hidden` are the same on all.

    Returns:
      A scalar, or with "none" an array of shape (...), in float32, or float64 for inputs in it.

    Raises:
      TypeError: if labels are no integers, or sizes are none; for what is no array, and for
        factors that are traced.
      ValueError: if shapes do not fit, or an option has no such value; for axes that are not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import weft as nnx
      >>> head = nnx.Linear(8, 1000, use_bias=False, rngs=nnx.Rngs(0))
      >>> hidden, labels = jnp.ones((2, 5, 8)), jnp.arange(10).reshape(2, 5)
      >>> loss, grads = nnx.value_and_grad(
      ...     lambda head: nnx.linear_cross_entropy(hidden, head.kernel, labels)
      ... )(head)
      >>> log_p = jax.nn.log_softmax(head(hidden))
      >>> plain = -jnp.take_along_axis(log_p, labels[..., None], -1).mean()
      >>> bool(jnp.allclose(loss, plain, atol=1e-5)), grads["kernel"].shape
      (True, (8, 1000))
      >>> embed = nnx.Embed(1000, 8, rngs=nnx.Rngs(0))
      >>> nnx.linear_cross_entropy(hidden, embed.embedding, labels, transposed=True).shape
      ()
    """
    hidden, kernel, labels = (
        _array(name, x) for name, x in (("hidden", hidden), ("kernel", kernel), ("labels", labels))
    )
    bias = None if bias is None else _array("bias", bias)
    weights = None if weights is None else _array("weights", weights)
    _check_options(reduction, label_smoothing, z_loss, logit_cap)
    _check_axes(axis_name, token_axes)
    _check_arrays(hidden, kernel, labels, bias, weights, transposed)
    dtype = jnp.dtype(canonicalize_dtype(hidden, kernel, dtype=dtype))
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(dtype, jnp.float32)
    features, vocabulary = kernel.shape[::-1] if transposed else kernel.shape
    if chunk_size is None:
        chunk_size = 1024 if features <= 1024 else 2048
    block = vocabulary if vocab_chunk_size is None else vocab_chunk_size
    check_sizes(_NAME, chunk_size=chunk_size, vocab_chunk_size=block)

    tokens = hidden.shape[:-1]
    if not labels.size:
        return jnp.zeros(tokens if reduction == "none" else (), wide)
    if labels.dtype.itemsize < 4 or jnp.issubdtype(labels.dtype, jnp.unsignedinteger):
        labels = labels.astype(jnp.int32)  # others have no place for a negative number
    whole = vocabulary * (1 if axis_name is None else lax.axis_size(axis_name))
    counts = labels != ignore_index
    given = jnp.ones((), wide) if weights is None else weights.astype(wide)
    counts = counts & (given != 0)
    odd = counts & ((labels < 0) | (labels >= whole))
    given = jnp.where(counts, jnp.where(odd, jnp.nan, given), jnp.zeros((), wide))
    labels = jnp.where(counts, jnp.where(odd, 0, labels), -1).astype(jnp.int32)

    if not tokens:  # one token
        hidden, labels = hidden[None], labels[None]
    settings = Settings(
        float(label_smoothing),
        float(z_loss),
        None if logit_cap is None else float(logit_cap),
        transposed,
        dtype,
        wide,
        precision,
        chunk_size,
        block,
        axis_name,
    )
    if reduction == "mean":  # so that nothing is left to do with the gradients afterwards
        count = jnp.sum(given)
        given = given / jnp.where(count == 0, 1.0, count)
    arguments = Operands(hidden, kernel, bias), labels, given.reshape(labels.shape)
    run = _losses if reduction == "none" else _sum
    spec = spec_of_tokens(hidden, token_axes)
    if spec is None:
        found = run(settings, *arguments)
    else:
        found = over_devices(run, settings, spec, *arguments, is_sum=run is _sum)
    return jnp.reshape(found, tokens) if run is _losses else found


def _losses(
    settings: Settings, operands: Operands, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    settings, operands, labels, weights = _prepared(settings, operands, labels, weights)
    losses: Any = each(settings, operands, labels)
    return losses * weights


def _sum(
    settings: Settings, operands: Operands, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    return summed(*_prepared(settings, operands, labels, weights))


def _prepared(
    settings: Settings, operands: Operands, labels: jax.Array, weights: jax.Array
) -> tuple[Settings, Operands, jax.Array, jax.Array]:
    """Counts the chunks, and makes arrays differ along the same mapped axes.

    What was the same on all devices then gets the sum of their gradients.
    """
    chunks = number_of_chunks(labels.shape, settings.chunks)
    axes = axes_of(*operands, labels, weights)
    own = axes & {settings.axis_name}  # tokens are the same on all devices of this one
    operands = Operands(*(varying(x, axes) for x in operands))
    labels, weights = (varying(x, axes - own) for x in (labels, weights))
    return settings._replace(chunks=chunks), operands, labels, weights


def _array(name: str, x: Any) -> jax.Array:
    if x is None or isinstance(x, Pytree):
        remedy = f"`head.{name}`" if isinstance(x, Pytree) else f"`jnp.asarray({name})`"
        raise TypeError(
            f"{_NAME} expects {name} to be an array or a Variable, found "
            f"{'None' if x is None else f'a {type(x).__name__}'}: write {remedy}"
        )
    return jnp.asarray(as_array(x.get_value() if isinstance(x, Variable) else x))


def _check_axes(axis_name: str | None, token_axes: Any) -> None:
    if token_axes is not None and get_abstract_mesh().empty:
        raise ValueError(
            f"{_NAME} has token_axes={token_axes!r}, and there is no mesh: compute the loss under "
            "`with jax.set_mesh(mesh):`, or leave out token_axes"
        )
    if axis_name is not None:
        try:
            lax.axis_size(axis_name)
        except NameError:
            raise ValueError(
                f"{_NAME} has axis_name={axis_name!r}, which is no mapped axis here: it is for the "
                "inside of `jax.shard_map`; elsewhere leave it out, shardings are followed"
            ) from None


def _check_options(
    reduction: str, label_smoothing: float, z_loss: float, logit_cap: float | None
) -> None:
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss, "logit_cap": logit_cap}
    for name, value in options.items():
        if isinstance(value, Tracer):
            raise TypeError(
                f"{_NAME} expects {name} to be a number, which is compiled in, found a traced "
                f"array: let the function close over it, or make it static, "
                f"`jax.jit(f, static_argnames={name!r})`"
            )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f'{_NAME} expects reduction to be "mean", "sum" or "none", found {reduction!r}: write '
            '`reduction="mean"`'
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"{_NAME} expects label_smoothing from 0 to 1, found {label_smoothing!r}: write for "
            "example `label_smoothing=0.1`"
        )
    if not z_loss >= 0:
        raise ValueError(
            f"{_NAME} expects z_loss to be a number from 0, found {z_loss!r}: write for example "
            "`z_loss=1e-4`"
        )
    if logit_cap is not None and not logit_cap > 0:
        raise ValueError(
            f"{_NAME} expects logit_cap to be a number over 0, found {logit_cap!r}: write "
            "`logit_cap=None` for logits as they are"
        )


def _check_arrays(
    hidden: jax.Array,
    kernel: jax.Array,
    labels: jax.Array,
    bias: jax.Array | None,
    weights: jax.Array | None,
    transposed: bool,
) -> None:
    axis = 1 if transposed else 0
    shape = "(vocabulary, features)" if transposed else "(features, vocabulary)"
    found = f"hidden {hidden.shape}, kernel {kernel.shape}, labels {labels.shape}"
    if hidden.ndim < 1 or kernel.ndim != 2 or hidden.shape[-1] != kernel.shape[axis]:
        remedy = "project `hidden` to the features of the kernel, or take another kernel"
        if kernel.ndim == 2 and hidden.ndim and hidden.shape[-1] == kernel.shape[1 - axis]:
            remedy = f"the kernel is the other way around, write `transposed={not transposed}`"
        raise ValueError(
            f"{_NAME} expects hidden of shape (..., features) and a kernel of shape {shape}, found "
            f"{found}: {remedy}"
        )
    if labels.shape != hidden.shape[:-1]:
        raise ValueError(
            f"{_NAME} expects labels of shape {hidden.shape[:-1]}, one for each token of hidden, "
            f"found {found}: write for example `labels.reshape({hidden.shape[:-1]})`"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"{_NAME} expects labels to be integers, found {labels.dtype.name}: cast them, "
            "`labels.astype(jnp.int32)`"
        )
    vocabulary = kernel.shape[1 - axis]
    if not vocabulary:
        raise ValueError(
            f"{_NAME} expects a vocabulary of at least one column, found kernel {kernel.shape}: "
            "make the layer with `out_features` of 1 or more"
        )
    if bias is not None and bias.shape != (vocabulary,):
        raise ValueError(
            f"{_NAME} expects a bias of shape ({vocabulary},), one for each column of the kernel, "
            f"found {bias.shape} beside kernel {kernel.shape}: write "
            f"`bias.reshape({vocabulary})` if it has as many elements"
        )
    if weights is not None and not _broadcasts(weights.shape, labels.shape):
        raise ValueError(
            f"{_NAME} expects weights that broadcast to the labels {labels.shape}, found "
            f"{weights.shape}: give one for each token, `weights.reshape({labels.shape})`"
        )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
