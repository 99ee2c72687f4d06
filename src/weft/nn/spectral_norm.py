"""Spectral normalisation: a layer whose weights stretch no vector more than its length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from weft._core.path import Path, format_path
from weft._module import Module
from weft._rng import Rngs
from weft._variable.types import BatchStat, Param
from weft._variable.variable import Variable
from weft.nn import initializers
from weft.nn.dtypes import Dtype, for_squares, scale_for_squares
from weft.nn.layer_options import choose_option
from weft.nn.weight_norm import find_weights


class SpectralNorm(Module):
    """Divides the weights of a layer by their largest singular value (Miyato et al., 2018).

    Before each call every `Param` of two or more axes, seen as a matrix with the last axis as its
    columns, is divided by an estimate of its spectral norm from `n_steps` of power iteration
    (https://arxiv.org/abs/1802.05957). The weight of the layer itself is replaced by the result.

    Args:
      layer_instance: the layer.
      n_steps: how many steps of power iteration a call makes.
      epsilon: added to squared norms.
      dtype: the dtype that results are rounded to; None for no rounding.
      param_dtype: the dtype of the statistics.
      error_on_non_matrix: whether to refuse weights of more than two axes.
      update_stats: whether calls update the statistics; None to demand it at the call.
        `model.eval()` switches it off, `model.train()` on.
      rngs: draws the first vector of each power iteration from the stream `params`.

    Attributes:
      layer_instance: the layer.
      batch_stats: for each weight, by its path in the layer, the `BatchStat`s `u`, the vector that
        power iteration is at, of shape (1, columns), and `sigma`, the last spectral norm.
      use_running_average: whether the statistics stay as they are: the opposite of `update_stats`.

    Raises:
      ValueError: if the layer has no such weight.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.SpectralNorm(
      ...     nnx.Linear(3, 4, rngs=nnx.Rngs(0)), n_steps=50, rngs=nnx.Rngs(1)
      ... )
      >>> y = layer(jnp.ones((2, 3)))
      >>> norm = jnp.linalg.norm(layer.layer_instance.kernel[...], ord=2)
      >>> round(float(norm), 4)
      1.0
    """

    def __init__(
        self,
        layer_instance: Callable[..., Any],
        *,
        n_steps: int = 1,
        epsilon: float = 1e-12,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        error_on_non_matrix: bool = False,
        update_stats: bool | None = True,
        rngs: Rngs,
    ):
        self.layer_instance = layer_instance
        self.n_steps = n_steps
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.error_on_non_matrix = error_on_non_matrix
        self.use_running_average = None if update_stats is None else not update_stats
        self.batch_stats: dict[tuple[Any, ...], BatchStat] = {}
        for path, weight in _weights(self).items():
            u = initializers.normal()(rngs.params(), (1, weight.shape[-1]), param_dtype)
            self.batch_stats[*path, "u"] = BatchStat(u)
            self.batch_stats[*path, "sigma"] = BatchStat(jnp.ones((), param_dtype))
        if not self.batch_stats:
            kind = type(layer_instance).__name__
            raise ValueError(
                f"SpectralNorm found no Param of two or more axes in {kind} to normalise: call "
                "that layer as it is"
            )

    def __call__(self, x: jax.Array, update_stats: bool | None = None) -> Any:
        """Normalises the weights and calls the layer.

        Args:
          x: the layer's input.
          update_stats: overrides the layer's.

        Raises:
          ValueError: if `error_on_non_matrix` is set and a weight has more than two axes, or if
            `update_stats` is None here and on the layer.
        """
        frozen = None if update_stats is None else not update_stats
        update_stats = not choose_option(self, "use_running_average", frozen)
        for path, weight in _weights(self).items():
            _normalize(self, path, weight, update_stats)
        return self.layer_instance(x)

    def _unit(self, vector: jax.Array) -> jax.Array:
        squared = jnp.sum(vector * vector, keepdims=True)
        return vector * lax.rsqrt(squared + self.epsilon)


def _weights(layer: Any) -> dict[Path, Variable]:
    weights = find_weights(layer.layer_instance, Param)
    return {path: weight for path, weight in weights.items() if weight.ndim > 1}


def _normalize(layer: Any, path: Path, weight: Variable, update_stats: bool) -> None:
    value = weight.get_value()
    if value.ndim > 2 and layer.error_on_non_matrix:
        raise ValueError(
            f"SpectralNorm expects matrices, since error_on_non_matrix=True, found "
            f"{format_path(path)} of shape {value.shape}: leave the option out to see it as a "
            "matrix with the last axis as columns"
        )
    u, sigma = layer.batch_stats[*path, "u"], layer.batch_stats[*path, "sigma"]
    matrix, start = for_squares(value.reshape(-1, value.shape[-1]), u.get_value())
    factor = scale_for_squares(matrix, (0, 1))
    matrix, epsilon = matrix * factor, layer.epsilon * factor**2
    with jax.numpy_dtype_promotion("standard"):  # `param_dtype` may differ
        left = right = start
        for _ in range(layer.n_steps):
            left = _unit(epsilon, jnp.matmul(right, matrix.T))
            right = _unit(epsilon, jnp.matmul(left, matrix))
        right, left = lax.stop_gradient(right), lax.stop_gradient(left)
        norm = jnp.matmul(jnp.matmul(left, matrix), right.T)[0, 0]
        new = matrix / jnp.where(norm != 0, norm, 1)
    if update_stats:
        # From a vector of zeros, which weights of zeros leave, no iteration gets away again.
        fit = jnp.isfinite(right).all() & (right != 0).any()
        right = jnp.where(fit, right, start.astype(right.dtype))
        u.set_value(right.astype(layer.param_dtype))
        sigma.set_value((norm / factor[0, 0]).astype(layer.param_dtype))
    new = new.reshape(value.shape).astype(layer.dtype or new.dtype)
    weight.set_value(new.astype(value.dtype))


def _unit(epsilon: jax.Array, vector: jax.Array) -> jax.Array:
    squared = jnp.sum(vector * vector, keepdims=True)
    return vector * lax.rsqrt(squared + epsilon)
