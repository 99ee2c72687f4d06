"""Weight normalisation: a layer whose weights have a norm that is learnt apart from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from weft._core.filters import Filter, PathContains
from weft._core.path import Path, format_path
from weft._graph import state, to_flat_state
from weft._module import Module
from weft._rng import Rngs
from weft._variable.types import Param
from weft._variable.variable import Variable
from weft.nn import initializers
from weft.nn.dtypes import Dtype, PromoteDtype, for_squares, promote_dtype, scale_for_squares
from weft.nn.initializers import Initializer
from weft.nn.moments import Axes, normalized_axes
from weft.nn.parameters import new_param


class WeightNorm(Module):
    """Gives the weights of a layer norms that are learnt (Salimans & Kingma, 2016).

    Before each call a weight w becomes `scale * w / |w|`, with the norm taken over all axes but
    the feature axes (https://arxiv.org/abs/1602.07868). The weight of the layer itself is replaced
    by the result, which has the same direction.

    Args:
      layer_instance: the layer.
      feature_axes: the axes along which each element has a norm of its own; None for one norm.
      use_scale: whether there is a learnt scale; without it the norms are 1.
      scale_init: initializer of the scales.
      epsilon: added to the squared norm.
      dtype: the dtype that results are rounded to; None for no rounding.
      param_dtype: the dtype of the scales.
      variable_filter: which of the layer's Variables are weights to normalise.
      promote_dtype: accepted as by the other layers; weights are computed with as they are.
      rngs: draws the scales from the stream `params`, if `scale_init` is random.

    Attributes:
      layer_instance: the layer.
      scales: `Param` of scales for each weight, by its path in the layer, or None.

    Raises:
      ValueError: if the filter finds no weight, or a weight lacks a feature axis.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> layer = nnx.WeightNorm(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
      >>> y = layer(jnp.ones((2, 3)))
      >>> jnp.linalg.norm(layer.layer_instance.kernel[...], axis=0).round(3).tolist()
      [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        layer_instance: Callable[..., Any],
        *,
        feature_axes: Axes | None = -1,
        use_scale: bool = True,
        scale_init: Initializer = initializers.ones,
        epsilon: float = 1e-12,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        variable_filter: Filter = PathContains("kernel", exact=True),  # noqa: B008 (a frozen value)
        promote_dtype: PromoteDtype = promote_dtype,
        rngs: Rngs,
    ):
        self.layer_instance = layer_instance
        self.feature_axes = () if feature_axes is None else feature_axes
        self.use_scale = use_scale
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.variable_filter = variable_filter
        self.promote_dtype = promote_dtype
        weights = find_weights(layer_instance, variable_filter)
        if not weights:
            found = [format_path(path) for path in find_weights(layer_instance, Variable)]
            raise ValueError(
                f"WeightNorm found no weight in {type(layer_instance).__name__} for "
                f"variable_filter={variable_filter!r}; its Variables are {found}: choose a filter "
                "that matches, `variable_filter=nnx.PathContains(name)`"
            )
        shapes = {path: self._scale_shape(path, weight) for path, weight in weights.items()}
        self.scales: Mapping[Path, Param] | None = None
        if use_scale:
            self.scales = {
                path: self._new_scale(scale_init, shape, rngs) for path, shape in shapes.items()
            }

    def __call__(self, x: jax.Array, *args: Any, **kwargs: Any) -> Any:
        """Normalises the weights and calls the layer.

        Args:
          x: the layer's input.
          *args: further arguments of the layer.
          **kwargs: keywords of the layer.
        """
        for path, weight in find_weights(self.layer_instance, self.variable_filter).items():
            old = weight.get_value()
            (value,) = for_squares(old)
            feature_axes = normalized_axes(self.feature_axes, value.ndim)
            reduced = tuple(axis for axis in range(value.ndim) if axis not in feature_axes)
            factor = scale_for_squares(value, reduced)
            value, epsilon = value * factor, self.epsilon * factor**2
            squared = jnp.sum(value * value, reduced, keepdims=True)
            # Zeros have no direction: they stay, and their gradient is that of the result.
            has_direction = jnp.any(value != 0, reduced, keepdims=True)
            new = value * jnp.where(has_direction, lax.rsqrt(squared + epsilon), 1)
            if self.scales is not None:
                scale = self.scales[path].get_value()
                shape = [n if axis in feature_axes else 1 for axis, n in enumerate(value.shape)]
                with jax.numpy_dtype_promotion("standard"):  # `param_dtype` may differ
                    new = new * scale.reshape(shape)
            weight.set_value(new.astype(self.dtype or new.dtype).astype(old.dtype))
        return self.layer_instance(x, *args, **kwargs)

    def _scale_shape(self, path: Path, weight: Variable) -> tuple[int, ...]:
        try:
            feature_axes = normalized_axes(self.feature_axes, weight.ndim)
        except ValueError as error:
            raise ValueError(
                f"WeightNorm cannot take feature_axes={self.feature_axes} for "
                f"{format_path(path)} of shape {weight.shape}: {error}"
            ) from None
        return tuple(weight.shape[axis] for axis in feature_axes)

    def _new_scale(self, init: Initializer, shape: tuple[int, ...], rngs: Rngs) -> Param:
        if init in (initializers.zeros, initializers.ones):  # draw nothing: later layers keep keys
            return Param(init(jax.random.key(0), shape, self.param_dtype))
        drawn_as = (math.prod(shape),)  # initializers need a shape with an axis
        return new_param(self, rngs, init, shape, self.param_dtype, drawn_as=drawn_as)


def find_weights(layer: Any, variable_filter: Filter) -> dict[Path, Variable]:
    """Returns the Variables of a layer that a filter matches, by path, in the order of paths."""
    return dict(to_flat_state(state(layer, variable_filter)))
