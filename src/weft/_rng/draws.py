"""Draws: everything of `jax.random` and `jax.nn.initializers` as methods that need no key.

A *source* gives a fresh key each time it is called: an `RngStream`, or an `Rngs`, which asks its
default stream. The body of `KeySource` is the one table of the functions a source offers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
from jax.nn import initializers

P = ParamSpec("P")
R = TypeVar("R")
Initializer = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class KeylessInitializer:
    """An initializer that takes its keys from a source, one per call.

    Attributes:
      source: what gives the keys.
      initializer: a function `(key, shape, dtype) -> array`.

    Example:
      >>> import weft as nnx
      >>> init = nnx.Rngs(0).lecun_normal()
      >>> init((2, 3)).shape
      (2, 3)
    """

    source: Callable[[], jax.Array]
    initializer: Initializer

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, out_sharding: Any = None
    ) -> jax.Array:
        """Returns an array of the given shape, drawn with the source's next key.

        Args:
          shape: the shape.
          dtype: the dtype; None for the initializer's own default.
          out_sharding: how to shard the array; None leaves it to JAX.
        """
        # What was not given is left out, so that the initializer's own defaults hold.
        options = {"dtype": dtype, "out_sharding": out_sharding}
        given = {name: value for name, value in options.items() if value is not None}
        return self.initializer(self.source(), tuple(shape), **given)


def _named(method: Callable, name: str, doc: str) -> None:
    method.__name__ = name
    method.__qualname__ = f"KeySource.{name}"
    method.__doc__ = doc


def _draw(function: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[KeySource, P], R]:
    """Turns a function whose first argument is a key into a method that draws that key."""

    def method(self: KeySource, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(self(), *args, **kwargs)

    name = function.__name__
    _named(method, name, f"Calls `jax.random.{name}` with the next key as its first argument.")
    method.__wrapped__ = function  # type: ignore[attr-defined] # the signature that help() shows
    return method


def _initializer(
    function: Callable[P, Initializer],
) -> Callable[Concatenate[KeySource, P], KeylessInitializer]:
    """Turns a maker of initializers into a method whose result draws its own keys."""

    def method(self: KeySource, *args: P.args, **kwargs: P.kwargs) -> KeylessInitializer:
        return KeylessInitializer(self, function(*args, **kwargs))

    name = function.__name__
    doc = (
        f"Returns `jax.nn.initializers.{name}(...)` as a function `(shape, dtype)` that draws a "
        "key each time it is called."
    )
    _named(method, name, doc)
    return method


class KeySource:
    """Base of what gives keys: draws from every distribution and initializer of JAX.

    Example:
      >>> import weft as nnx
      >>> rngs = nnx.Rngs(0)
      >>> rngs.normal((2, 3)).shape
      (2, 3)
      >>> rngs.he_normal()((2, 3)).shape
      (2, 3)
    """

    __slots__ = ()

    def __call__(self) -> jax.Array:
        """Returns the next key."""
        raise NotImplementedError

    ball = _draw(jax.random.ball)
    bernoulli = _draw(jax.random.bernoulli)
    beta = _draw(jax.random.beta)
    binomial = _draw(jax.random.binomial)
    bits = _draw(jax.random.bits)
    categorical = _draw(jax.random.categorical)
    cauchy = _draw(jax.random.cauchy)
    chisquare = _draw(jax.random.chisquare)
    choice = _draw(jax.random.choice)
    dirichlet = _draw(jax.random.dirichlet)
    double_sided_maxwell = _draw(jax.random.double_sided_maxwell)
    exponential = _draw(jax.random.exponential)
    f = _draw(jax.random.f)
    gamma = _draw(jax.random.gamma)
    generalized_normal = _draw(jax.random.generalized_normal)
    geometric = _draw(jax.random.geometric)
    gumbel = _draw(jax.random.gumbel)
    laplace = _draw(jax.random.laplace)
    loggamma = _draw(jax.random.loggamma)
    logistic = _draw(jax.random.logistic)
    lognormal = _draw(jax.random.lognormal)
    maxwell = _draw(jax.random.maxwell)
    multinomial = _draw(jax.random.multinomial)
    multivariate_normal = _draw(jax.random.multivariate_normal)
    normal = _draw(jax.random.normal)
    orthogonal = _draw(jax.random.orthogonal)
    pareto = _draw(jax.random.pareto)
    permutation = _draw(jax.random.permutation)
    poisson = _draw(jax.random.poisson)
    rademacher = _draw(jax.random.rademacher)
    randint = _draw(jax.random.randint)
    rayleigh = _draw(jax.random.rayleigh)
    t = _draw(jax.random.t)
    triangular = _draw(jax.random.triangular)
    truncated_normal = _draw(jax.random.truncated_normal)
    uniform = _draw(jax.random.uniform)
    wald = _draw(jax.random.wald)
    weibull_min = _draw(jax.random.weibull_min)

    delta_orthogonal = _initializer(initializers.delta_orthogonal)
    glorot_normal = _initializer(initializers.glorot_normal)
    glorot_uniform = _initializer(initializers.glorot_uniform)
    he_normal = _initializer(initializers.he_normal)
    he_uniform = _initializer(initializers.he_uniform)
    kaiming_normal = he_normal
    kaiming_uniform = he_uniform
    lecun_normal = _initializer(initializers.lecun_normal)
    lecun_uniform = _initializer(initializers.lecun_uniform)
    variance_scaling = _initializer(initializers.variance_scaling)
    xavier_normal = glorot_normal
    xavier_uniform = glorot_uniform
