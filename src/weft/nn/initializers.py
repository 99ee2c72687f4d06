"""Initializers: what the arrays of a new layer hold.

An *initializer* is a function `(key, shape, dtype) -> array`. Those of this module are JAX's own;
what JAX returns as closures are records here: equal if they do the same, hashable, picklable.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from weft._core.trace import is_outermost
from weft.nn.one_program import in_one_program

Initializer = jax.nn.initializers.Initializer | Callable[..., Any]
"""Type of initializers: of JAX's, and of any function that may stand in their place."""

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True, eq=False)
class NamedInitializer:
    """An initializer of `jax.nn.initializers`, by its name there and its arguments.

    Two of them are equal if name, argument types and argument values are; 0.0 and -0.0 differ.

    Attributes:
      name: the name of the JAX function that makes the initializer.
      arguments: all of its arguments, defaults included.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> init = nnx.initializers.lecun_normal()
      >>> init == nnx.initializers.lecun_normal(in_axis=-2)
      True
      >>> init(jax.random.key(0), (2, 3)).shape
      (2, 3)
    """

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: Any = None, out_sharding: Any = None
    ) -> jax.Array:
        """Returns an initial array.

        Args:
          key: a PRNG key.
          shape: shape of the array.
          dtype: its dtype; by default the one the initializer was made with, else float32.
          out_sharding: where it shall live, on a mesh of explicit axes.
        """
        if out_sharding is None and self._is_static and _can_be_compiled(key, shape):
            return in_one_program(self, key, tuple(shape), dtype)
        init = getattr(jax.nn.initializers, self.name)(**dict(self.arguments))
        # JAX takes None for its own default dtype, not for the one the initializer was made with.
        args = (key, shape) if dtype is None else (key, shape, dtype)
        if out_sharding is None:
            return init(*args)
        try:
            return init(*args, out_sharding=out_sharding)
        except NotImplementedError:  # JAX's orthogonal ones
            return jax.sharding.reshard(init(*args), out_sharding)

    def __eq__(self, other: object) -> bool:
        return type(other) is NamedInitializer and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments)})"

    @property
    def _is_static(self) -> bool:
        """Whether the arguments are no arrays, which would be constants of a program."""
        return not any(isinstance(value, (jax.Array, np.ndarray)) for _, value in self.arguments)

    @property
    def _identity(self) -> Any:
        return self.name, tuple((name, _identity_of(value)) for name, value in self.arguments)


def _can_be_compiled(key: Any, shape: Any) -> bool:
    """Returns whether a call is one of its own, with what a program can be kept for.

    Inside a trace an initializer is part of what is traced. Of raw key data JAX chooses the type by
    a setting that does not belong to what `jax.jit` keeps programs by.
    """
    return (
        is_outermost()
        and isinstance(key, jax.Array)
        and not isinstance(key, jax.core.Tracer)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and isinstance(shape, (tuple, list))
        and all(isinstance(size, (int, np.integer)) for size in shape)
    )


def _identity_of(argument: Any) -> Any:
    """Returns something hashable that is equal for arguments that mean the same, only for them."""
    if isinstance(argument, (tuple, list)):
        return tuple(map(_identity_of, argument))
    if isinstance(argument, (jax.Array, np.ndarray)):
        array = np.asarray(argument)
        return array.dtype.name, array.shape, array.tobytes()
    # The repr, because 0.0 == -0.0 and NaN differs from itself.
    return type(argument), repr(argument)


_DOCUMENTATION = """{summary}

Takes the arguments of `jax.nn.initializers.{name}`.

Returns:
  An initializer `(key, shape, dtype=None, out_sharding=None) -> array`.

Example:
  >>> import jax
  >>> import weft as nnx
  >>> nnx.initializers.{name}({example})(jax.random.key(0), (3, 4, 4)).shape
  (3, 4, 4)
"""


def _recorded(
    make: Callable[P, Any], summary: str, example: str = ""
) -> Callable[P, NamedInitializer]:
    """Wraps a function of JAX that makes initializers such that it makes records of them.

    Args:
      make: the function of JAX.
      summary: what the arrays are like, for the docstring.
      example: arguments to show in the docstring.
    """
    name = make.__name__
    signature = inspect.signature(make)

    @functools.wraps(make)
    def recorded(*args: P.args, **kwargs: P.kwargs) -> NamedInitializer:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        if arguments["dtype"] is not None:
            arguments["dtype"] = np.dtype(arguments["dtype"])
        return NamedInitializer(name, tuple(arguments.items()))

    recorded.__module__ = __name__  # so that the function itself can be pickled
    recorded.__doc__ = _DOCUMENTATION.format(name=name, summary=summary, example=example)
    return recorded


_jax = jax.nn.initializers

zeros = _jax.zeros
ones = _jax.ones

constant = _recorded(_jax.constant, "Every element is `value`.", "0.5")
normal = _recorded(_jax.normal, "Normal with mean 0 and standard deviation `stddev`.")
truncated_normal = _recorded(
    _jax.truncated_normal,
    "Normal with mean 0, cut off at `lower` and `upper`, then scaled by `stddev`.",
)
uniform = _recorded(_jax.uniform, "Uniform on [0, `scale`).")
variance_scaling = _recorded(
    _jax.variance_scaling,
    "Random with a variance of `scale` divided by the fan of `mode`; the others are cases of it.",
    "2.0, 'fan_in', 'truncated_normal'",
)
lecun_normal = _recorded(
    _jax.lecun_normal,
    "Truncated normal of variance 1/fan_in (LeCun et al. 1998, Efficient BackProp).",
)
lecun_uniform = _recorded(
    _jax.lecun_uniform, "Uniform of variance 1/fan_in (LeCun et al. 1998, Efficient BackProp)."
)
glorot_normal = _recorded(
    _jax.glorot_normal, "Truncated normal of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)."
)
glorot_uniform = _recorded(
    _jax.glorot_uniform, "Uniform of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)."
)
he_normal = _recorded(
    _jax.he_normal, "Truncated normal of variance 2/fan_in (He et al. 2015, arXiv:1502.01852)."
)
he_uniform = _recorded(
    _jax.he_uniform, "Uniform of variance 2/fan_in (He et al. 2015, arXiv:1502.01852)."
)
orthogonal = _recorded(
    _jax.orthogonal, "A random orthogonal matrix times `scale` (Saxe et al. 2014, arXiv:1312.6120)."
)
delta_orthogonal = _recorded(
    _jax.delta_orthogonal,
    "Orthogonal at the middle of a convolution kernel, 0 elsewhere (Xiao et al. 2018, "
    "arXiv:1806.05393).",
)
xavier_normal = glorot_normal
xavier_uniform = glorot_uniform
kaiming_normal = he_normal
kaiming_uniform = he_uniform


def zeros_init() -> Callable[..., jax.Array]:
    """Returns the initializer `zeros`.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> nnx.initializers.zeros_init()(jax.random.key(0), (2,))
      Array([0., 0.], dtype=float32)
    """
    return zeros


def ones_init() -> Callable[..., jax.Array]:
    """Returns the initializer `ones`.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> nnx.initializers.ones_init()(jax.random.key(0), (2,))
      Array([1., 1.], dtype=float32)
    """
    return ones


default_kernel_init = lecun_normal()
default_bias_init = zeros_init()
default_embed_init = variance_scaling(1.0, "fan_in", "normal", out_axis=0)
