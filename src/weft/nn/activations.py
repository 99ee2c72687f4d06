"""Activation functions: those of JAX under names that pickle, and one with a parameter.

JAX's own are compiled functions, which pickle cannot store and `copy.deepcopy` replaces by others.
Here each is a plain function around JAX's, so that a model may keep it as an attribute. They take
lists, and integers as `jax.numpy` does, where JAX's own refuse them.

Some are not finite in JAX where they have a limit: x * sigmoid(x) is NaN at minus infinity, and so
is the gradient, even of an element that a `where` leaves out. These have *tails* here: beyond a
bound, where they are equal in the dtype, the limit stands for the function.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from weft._module import Module
from weft._variable.types import Param
from weft._variable.variable import Variable
from weft.nn import dtypes
from weft.nn.dtypes import as_array
from weft.nn.moments import finite_where_masked
from weft.nn.nnx_names import names_for
from weft.nn.parameters import NO_METADATA
from weft.nn.torch_weights import TorchWeights, reshaped

__getattr__ = names_for(__name__)

Axis = int | tuple[int, ...] | None


def _floats(x: Any) -> Any:
    """Returns lists as arrays, Variables as their values, and integers as `jax.numpy` does."""
    x = as_array(x.get_value() if isinstance(x, Variable) else x)
    dtype = jnp.result_type(x)
    if jnp.issubdtype(dtype, jnp.inexact):
        return x
    return jnp.asarray(x, dtypes.inexact_dtype(dtype))


def _with_tails(
    function: Callable[[Any], jax.Array],
    x: jax.Array,
    tail: Callable[[Any], jax.Array] = jax.nn.relu,
    bound: float = math.inf,
) -> jax.Array:
    """Returns `function` of the elements that are finite and within the bound, else `tail`."""
    if jnp.iscomplexobj(x):
        return function(x)
    bound = min(bound, float(jnp.finfo(x.dtype).max))
    within = jnp.abs(x) <= bound
    return jnp.where(within, function(jnp.where(within, x, 0)), tail(x))


def _chosen(x: Any, axis: Axis, where: Any) -> tuple[jax.Array, jax.Array]:
    """Returns elements and a mask for JAX's functions of exponentials, whose gradients are finite.

    Elements that are left out are minus infinity. Where none is left along the axes all of them
    count, as zeros, since 0 / 0 has no gradient; the caller selects what then comes out.
    """
    where = jnp.broadcast_to(jnp.asarray(where, bool), jnp.shape(x))
    anything = where.any(axis, keepdims=True)
    neutral = jnp.where(anything, -jnp.inf, 0.0).astype(jnp.result_type(x))
    return jnp.where(where, x, neutral), where | ~anything


# JAX's functions are compiled, so that a call costs one program; those with tails are, too.
@functools.partial(jax.jit, static_argnums=1)
def _gelu(x: jax.Array, approximate: bool) -> jax.Array:
    # At these bounds the distribution function is 0 or 1 in every dtype; x cubed is finite.
    bound = 10.0 if approximate else 40.0
    return _with_tails(lambda x: jax.nn.gelu(x, approximate), x, bound=bound)


@functools.partial(jax.jit, static_argnums=1)
def _glu(x: jax.Array, axis: int) -> jax.Array:
    values, gates = jnp.split(x, 2, axis)
    shares = jax.nn.sigmoid(gates)
    # Infinity times 0, a share or the gradient of one, would be NaN; a gate that is NaN stays so.
    fixed = jax.lax.stop_gradient(jnp.maximum(shares, float(jnp.finfo(x.dtype).tiny)))
    return _with_tails(lambda values: values * shares, values, lambda values: values * fixed)


@jax.jit
def _hard_silu(x: jax.Array) -> jax.Array:
    return _with_tails(jax.nn.hard_silu, x, bound=4.0)


@jax.jit
def _silu(x: jax.Array) -> jax.Array:
    # Where x exp(x) is 0: a gradient times x may overflow, and is multiplied by 0 from there on.
    smallest = float(jnp.finfo(x.dtype).smallest_subnormal)
    return _with_tails(jax.nn.silu, x, bound=8.0 - math.log(smallest))


@jax.jit
def _soft_sign(x: jax.Array) -> jax.Array:
    return _with_tails(jax.nn.soft_sign, x, jnp.sign, bound=4.0 / float(jnp.finfo(x.dtype).eps))


def celu(x: ArrayLike, alpha: ArrayLike = 1.0) -> jax.Array:
    """Continuously differentiable `elu`: max(x, 0) + min(alpha (exp(x / alpha) - 1), 0).

    Source: Barron 2017, arXiv:1704.07483.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.celu(jnp.array([-100.0, 2.0]))
      Array([-1.,  2.], dtype=float32)
    """
    return jax.nn.celu(_floats(x), alpha)


def elu(x: ArrayLike, alpha: ArrayLike = 1.0) -> jax.Array:
    """Exponential linear unit: x, and alpha (exp(x) - 1) where x is negative.

    Source: Clevert et al. 2015, arXiv:1511.07289.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.elu(jnp.array([-100.0, 2.0]))
      Array([-1.,  2.], dtype=float32)
    """
    return jax.nn.elu(_floats(x), alpha)


def gelu(x: ArrayLike, approximate: bool = True) -> jax.Array:
    """Gaussian error linear unit: x times the normal distribution function of x.

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415.

    Args:
      x: an array of any shape.
      approximate: whether to use the approximation by `tanh` instead of the error function.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.gelu(jnp.array([0.0, 100.0]))
      Array([  0., 100.], dtype=float32)
    """
    return _gelu(_floats(x), approximate)


def glu(x: ArrayLike, axis: int = -1) -> jax.Array:
    """Gated linear unit: the first half of an axis times the sigmoid of the second.

    Source: Dauphin et al. 2016, arXiv:1612.08083.

    Args:
      x: an array; the size of the axis is even.
      axis: the axis that is halved.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.glu(jnp.array([1.0, 2.0, 0.0, 0.0]))
      Array([0.5, 1. ], dtype=float32)
    """
    return _glu(_floats(x), axis)


def hard_sigmoid(x: ArrayLike) -> jax.Array:
    """Piecewise linear sigmoid: relu6(x + 3) / 6.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.hard_sigmoid(jnp.array([-3.0, 0.0, 3.0]))
      Array([0. , 0.5, 1. ], dtype=float32)
    """
    return jax.nn.hard_sigmoid(_floats(x))


def hard_silu(x: ArrayLike) -> jax.Array:
    """Piecewise linear `silu`: x times hard_sigmoid(x).

    Source: Howard et al. 2019, arXiv:1905.02244.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.hard_silu(jnp.array([-1.5, 0.0, 3.0]))
      Array([-0.375,  0.   ,  3.   ], dtype=float32)
    """
    return _hard_silu(_floats(x))


def hard_swish(x: ArrayLike) -> jax.Array:
    """The same as `hard_silu`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.hard_swish(jnp.array([-1.5, 0.0, 3.0]))
      Array([-0.375,  0.   ,  3.   ], dtype=float32)
    """
    return _hard_silu(_floats(x))


def hard_tanh(x: ArrayLike) -> jax.Array:
    """Piecewise linear tanh: x clipped to [-1, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.hard_tanh(jnp.array([-3.0, 0.5, 3.0]))
      Array([-1. ,  0.5,  1. ], dtype=float32)
    """
    return jax.nn.hard_tanh(as_array(x))


def identity(x: ArrayLike) -> jax.Array:
    """Returns its argument, as an array.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.identity(jnp.array([-1.0, 2.0]))
      Array([-1.,  2.], dtype=float32)
    """
    return jax.nn.identity(as_array(x))


def leaky_relu(x: ArrayLike, negative_slope: ArrayLike = 1e-2) -> jax.Array:
    """Leaky rectified linear unit: x, and negative_slope x where x is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.leaky_relu(jnp.array([-1.0, 2.0]), 0.5)
      Array([-0.5,  2. ], dtype=float32)
    """
    return jax.nn.leaky_relu(_floats(x), negative_slope)


def log_sigmoid(x: ArrayLike) -> jax.Array:
    """Logarithm of the sigmoid: -softplus(-x).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.log_sigmoid(jnp.array([-100.0, 100.0]))
      Array([-100.,   -0.], dtype=float32)
    """
    return jax.nn.log_sigmoid(_floats(x))


def log_softmax(x: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None) -> jax.Array:
    """Logarithm of the softmax, computed without overflow.

    Args:
      x: an array.
      axis: the axes over which the exponentials sum to one.
      where: which elements count, infinities and NaN among the others harm nothing; the others
        become -inf.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.log_softmax(jnp.array([0.0, 1000.0]))
      Array([-1000.,     0.], dtype=float32)
    """
    x = _floats(x)
    if where is None:
        return jax.nn.log_softmax(x, axis)
    chosen, counted = _chosen(x, axis, where)
    return jnp.where(where, jax.nn.log_softmax(chosen, axis, where=counted), -jnp.inf)


def logsumexp(
    a: ArrayLike,
    axis: Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Logarithm of the sum of exponentials, computed without overflow.

    Args:
      a: an array.
      axis: the axes that are summed; all if None.
      b: factors of the exponentials.
      keepdims: whether to keep the summed axes with size 1.
      return_sign: whether to return the sign of the sum, too.
      where: which elements count, infinities and NaN among the others harm nothing; -inf is
        returned where none does.

    Returns:
      The logarithm, or (logarithm of the absolute value, sign).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.logsumexp(jnp.array([1000.0, -1000.0]))
      Array(1000., dtype=float32)
    """
    a = _floats(a)
    if where is None:
        return jax.nn.logsumexp(a, axis, b, keepdims, return_sign)
    chosen, counted = _chosen(a, axis, where)
    anything = jnp.any(jnp.broadcast_to(where, jnp.shape(a)), axis, keepdims=keepdims)
    value, sign = jax.nn.logsumexp(chosen, axis, b, keepdims, True, counted)  # type: ignore[misc]
    value, sign = jnp.where(anything, value, -jnp.inf), jnp.where(anything, sign, 0)
    return (value, sign) if return_sign else value


def one_hot(
    x: Any, num_classes: int, *, dtype: Any = None, axis: Any = -1, **options: Any
) -> jax.Array:
    """Vectors that are one at the class and zero elsewhere; all zero where there is no such class.

    Args:
      x: integers of shape (...).
      num_classes: the size of the new axis.
      dtype: the dtype of the result; JAX's default float if missing.
      axis: where the new axis stands, or the name of a mapped axis.
      **options: what the installed JAX takes besides.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.one_hot(jnp.array([0, 2]), 3)
      Array([[1., 0., 0.],
             [0., 0., 1.]], dtype=float32)
    """
    return jax.nn.one_hot(as_array(x), num_classes, dtype=dtype, axis=axis, **options)


def relu(x: ArrayLike) -> jax.Array:
    """Rectified linear unit: max(x, 0), whose gradient at 0 is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.relu(jnp.array([-1.0, 2.0]))
      Array([0., 2.], dtype=float32)
    """
    return jax.nn.relu(as_array(x))


def relu6(x: ArrayLike) -> jax.Array:
    """Rectified linear unit that ends at six: min(max(x, 0), 6).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.relu6(jnp.array([-1.0, 2.0, 7.0]))
      Array([0., 2., 6.], dtype=float32)
    """
    return jax.nn.relu6(_floats(x))


def selu(x: ArrayLike) -> jax.Array:
    """Scaled `elu`, whose constants keep mean and variance of activations.

    Source: Klambauer et al. 2017, arXiv:1706.02515.

    Example:
      >>> import weft as nnx
      >>> float(nnx.selu(1.0))
      1.05...
    """
    return jax.nn.selu(_floats(x))


def sigmoid(x: ArrayLike) -> jax.Array:
    """Logistic function: 1 / (1 + exp(-x)).

    Example:
      >>> import weft as nnx
      >>> float(nnx.sigmoid(0.0))
      0.5
    """
    return jax.nn.sigmoid(_floats(x))


def silu(x: ArrayLike) -> jax.Array:
    """Sigmoid linear unit, or swish: x times sigmoid(x).

    Source: Elfwing et al. 2017, arXiv:1702.03118.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.silu(jnp.array([0.0, 100.0]))
      Array([  0., 100.], dtype=float32)
    """
    return _silu(_floats(x))


def soft_sign(x: ArrayLike) -> jax.Array:
    """Soft sign: x / (abs(x) + 1).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.soft_sign(jnp.array([-1.0, 0.0, 3.0]))
      Array([-0.5 ,  0.  ,  0.75], dtype=float32)
    """
    return _soft_sign(_floats(x))


def softmax(x: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None) -> jax.Array:
    """Exponentials that sum to one along the axes, computed without overflow.

    Args:
      x: an array.
      axis: the axes over which they sum to one.
      where: which elements count, infinities and NaN among the others harm nothing; the others
        become 0, also where none counts.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.softmax(jnp.array([0.0, 0.0, 1000.0]))
      Array([0., 0., 1.], dtype=float32)
    """
    x = _floats(x)
    if where is None:
        return jax.nn.softmax(x, axis)
    chosen, counted = _chosen(x, axis, where)
    return jnp.where(where, jax.nn.softmax(chosen, axis, where=counted), 0)


def softplus(x: ArrayLike) -> jax.Array:
    """Smooth `relu`: log(1 + exp(x)).

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.softplus(jnp.array([-100.0, 100.0]))
      Array([  0., 100.], dtype=float32)
    """
    return jax.nn.softplus(_floats(x))


def standardize(
    x: ArrayLike,
    axis: Axis = -1,
    mean: ArrayLike | None = None,
    variance: ArrayLike | None = None,
    epsilon: ArrayLike = 1e-5,
    where: ArrayLike | None = None,
    **options: Any,
) -> jax.Array:
    """Shifts and scales to mean 0 and variance 1 along the axes.

    Args:
      x: an array.
      axis: the axes of which mean and variance are taken.
      mean: the mean, if known.
      variance: the variance, if known.
      epsilon: what is added to the variance.
      where: which elements count, infinities and NaN among the others harm nothing. Where none
        does, they stay as they are.
      **options: what the installed JAX takes besides, such as `algorithm`.

    Returns:
      An array of the dtype of `x`, computed in float32 or wider.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.standardize(jnp.array([1.0, 3.0]), epsilon=0.0)
      Array([-1.,  1.], dtype=float32)
    """
    x = _floats(x)
    dtype = jnp.result_type(x)
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(dtype, jnp.float32)
        if wide != dtype:
            x = jnp.asarray(x, wide)
        if where is None:
            result = jax.nn.standardize(x, axis, mean, variance, epsilon, **options)
        else:
            x = finite_where_masked(x, where)
            where = jnp.broadcast_to(jnp.asarray(where, bool), x.shape)
            anything = where.any(axis, keepdims=True)
            chosen = where | ~anything
            result = jax.nn.standardize(x, axis, mean, variance, epsilon, chosen, **options)
            result = jnp.where(anything, result, x)
        return result.astype(dtype)


def swish(x: ArrayLike) -> jax.Array:
    """The same as `silu`.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.swish(jnp.array([0.0, 100.0]))
      Array([  0., 100.], dtype=float32)
    """
    return _silu(_floats(x))


def tanh(x: ArrayLike, /) -> jax.Array:
    """Hyperbolic tangent.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.tanh(jnp.array([-100.0, 0.0, 100.0]))
      Array([-1.,  0.,  1.], dtype=float32)
    """
    return jnp.tanh(_floats(x))


class PReLU(Module):
    """Leaky ReLU whose slope for negative inputs is learnt (He et al. 2015, arXiv:1502.01852).

    Args:
      negative_slope_init: its initial value.
      dtype: computation dtype; by default that of the inputs, or float32 for integers.
      param_dtype: dtype of the slope.
      promote_dtype: what casts inputs and slope to `dtype`.
      negative_slope_metadata: keyword metadata of the slope.

    Attributes:
      negative_slope: Param of shape ().

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.PReLU(0.25)(jnp.array([-4.0, 3.0]))
      Array([-1.,  3.], dtype=float32)
    """

    torch_weights: ClassVar[TorchWeights] = {"weight": reshaped("negative_slope", (), (1,))}

    def __init__(
        self,
        negative_slope_init: float = 0.01,
        *,
        dtype: dtypes.Dtype | None = None,
        param_dtype: dtypes.Dtype = jnp.float32,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        negative_slope_metadata: Mapping[str, Any] = NO_METADATA,
    ):
        value = jnp.asarray(negative_slope_init, param_dtype)
        self.negative_slope = Param(value, **negative_slope_metadata)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.promote_dtype = promote_dtype

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Applies the activation to each element.

        Args:
          inputs: an array of any shape.

        Returns:
          An array of the same shape.
        """
        inputs = as_array(inputs)
        dtype = self.dtype
        if dtype is None:
            dtype = dtypes.canonicalize_dtype(inputs)
        inputs, slope = self.promote_dtype((inputs, self.negative_slope[...]), dtype=dtype)
        # The slope gets the gradient 0 from the other elements, times what stands here.
        lowest = jnp.finfo(inputs.dtype).min
        negative = jnp.where(inputs >= 0, 0, jnp.maximum(inputs, lowest))
        return jnp.where(inputs >= 0, inputs, slope * negative)
