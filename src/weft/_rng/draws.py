"""Draws: everything of `jax.random` and `jax.nn.initializers` as methods that need no key.

A *source* gives a fresh key each time it is called: an `RngStream`, or an `Rngs`, which asks its
default stream. The body of `KeySource` is the one table of the functions a source offers.
"""

from __future__ import annotations

import contextlib
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


# A name is looked up when it is used: if JAX drops it, one method breaks and all else goes on.
def _named(method: Any, find: Callable[[], Any], doc: str) -> None:
    name = find.__code__.co_names[-1]
    method.__name__ = name
    method.__qualname__ = f"KeySource.{name}"
    method.__doc__ = doc.format(name)


def _draw(
    find: Callable[[], Callable[Concatenate[Any, P], R]],
) -> Callable[Concatenate[KeySource, P], R]:
    """Turns a function whose first argument is a key into a method that draws that key."""

    def method(self: KeySource, *args: P.args, **kwargs: P.kwargs) -> R:
        return find()(self(), *args, **kwargs)

    _named(method, find, "Calls `jax.random.{}` with the next key as its first argument.")
    with contextlib.suppress(AttributeError):
        method.__wrapped__ = find()  # type: ignore[attr-defined] # the signature that help() shows
    return method


def _initializer(
    find: Callable[[], Callable[P, Initializer]],
) -> Callable[Concatenate[KeySource, P], KeylessInitializer]:
    """Turns a maker of initializers into a method whose result draws its own keys."""

    def method(self: KeySource, *args: P.args, **kwargs: P.kwargs) -> KeylessInitializer:
        return KeylessInitializer(self, find()(*args, **kwargs))

    doc = (
        "Returns `jax.nn.initializers.{}(...)` as a function `(shape, dtype)` that draws a "
        "key each time it is called."
    )
    _named(method, find, doc)
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

    ball = _draw(lambda: jax.random.ball)
    bernoulli = _draw(lambda: jax.random.bernoulli)
    beta = _draw(lambda: jax.random.beta)
    binomial = _draw(lambda: jax.random.binomial)
    bits = _draw(lambda: jax.random.bits)
    categorical = _draw(lambda: jax.random.categorical)
    cauchy = _draw(lambda: jax.random.cauchy)
    chisquare = _draw(lambda: jax.random.chisquare)
    choice = _draw(lambda: jax.random.choice)
    dirichlet = _draw(lambda: jax.random.dirichlet)
    double_sided_maxwell = _draw(lambda: jax.random.double_sided_maxwell)
    exponential = _draw(lambda: jax.random.exponential)
    f = _draw(lambda: jax.random.f)
    gamma = _draw(lambda: jax.random.gamma)
    generalized_normal = _draw(lambda: jax.random.generalized_normal)
    geometric = _draw(lambda: jax.random.geometric)
    gumbel = _draw(lambda: jax.random.gumbel)
    laplace = _draw(lambda: jax.random.laplace)
    loggamma = _draw(lambda: jax.random.loggamma)
    logistic = _draw(lambda: jax.random.logistic)
    lognormal = _draw(lambda: jax.random.lognormal)
    maxwell = _draw(lambda: jax.random.maxwell)
    multinomial = _draw(lambda: jax.random.multinomial)
    multivariate_normal = _draw(lambda: jax.random.multivariate_normal)
    normal = _draw(lambda: jax.random.normal)
    orthogonal = _draw(lambda: jax.random.orthogonal)
    pareto = _draw(lambda: jax.random.pareto)
    permutation = _draw(lambda: jax.random.permutation)
    poisson = _draw(lambda: jax.random.poisson)
    rademacher = _draw(lambda: jax.random.rademacher)
    randint = _draw(lambda: jax.random.randint)
    rayleigh = _draw(lambda: jax.random.rayleigh)
    t = _draw(lambda: jax.random.t)
    triangular = _draw(lambda: jax.random.triangular)
    truncated_normal = _draw(lambda: jax.random.truncated_normal)
    uniform = _draw(lambda: jax.random.uniform)
    wald = _draw(lambda: jax.random.wald)
    weibull_min = _draw(lambda: jax.random.weibull_min)

    delta_orthogonal = _initializer(lambda: initializers.delta_orthogonal)
    glorot_normal = _initializer(lambda: initializers.glorot_normal)
    glorot_uniform = _initializer(lambda: initializers.glorot_uniform)
    he_normal = _initializer(lambda: initializers.he_normal)
    he_uniform = _initializer(lambda: initializers.he_uniform)
    kaiming_normal = he_normal
    kaiming_uniform = he_uniform
    lecun_normal = _initializer(lambda: initializers.lecun_normal)
    lecun_uniform = _initializer(lambda: initializers.lecun_uniform)
    variance_scaling = _initializer(lambda: initializers.variance_scaling)
    xavier_normal = glorot_normal
    xavier_uniform = glorot_uniform
