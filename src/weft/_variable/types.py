"""The types of Variables: of models, of random streams and of optimizers.

A Variable's type says what its value is for; filters select by it.
"""

from __future__ import annotations

from typing import Any

from weft._variable.variable import A, Variable


class Param(Variable[A]):
    """A learnable parameter.

    Example:
      >>> import weft as nnx
      >>> nnx.Param(1.0) + 2.0
      3.0
    """

    __slots__ = ()


class BatchStat(Variable[A]):
    """A running statistic, such as the mean of a batch normalisation.

    Example:
      >>> import weft as nnx
      >>> nnx.BatchStat(1.0).value
      1.0
    """

    __slots__ = ()


class Cache(Variable[A]):
    """State of autoregressive decoding.

    Example:
      >>> import weft as nnx
      >>> nnx.Cache(0).value
      0
    """

    __slots__ = ()


class Intermediate(Variable[A]):
    """A value kept by `Module.sow`.

    Example:
      >>> import weft as nnx
      >>> nnx.Intermediate((1.0,)).value
      (1.0,)
    """

    __slots__ = ()
    _is_passing = True


class Perturbation(Intermediate[A]):
    """A zero added by `Module.perturb`, whose gradient is that of an intermediate value.

    Example:
      >>> import weft as nnx
      >>> nnx.Perturbation(0.0).value
      0.0
    """

    __slots__ = ()


class RngState(Variable[A]):
    """State of a random stream; the base of `RngKey` and `RngCount`.

    Example:
      >>> import weft as nnx
      >>> len(nnx.to_flat_state(nnx.state(nnx.Rngs(0), nnx.RngState)))
      2
    """

    __slots__ = ()
    _is_passing = True


class RngCount(RngState[A]):
    """The number of keys drawn from a stream so far, uint32.

    Example:
      >>> import weft as nnx
      >>> stream = nnx.Rngs(0).default
      >>> key = stream()
      >>> int(stream.count[...])
      1
    """

    __slots__ = ()


class RngKey(RngState[A]):
    """The base key of a stream: a typed JAX PRNG key.

    Example:
      >>> import weft as nnx
      >>> nnx.Rngs(0).default.key.shape
      ()
    """

    __slots__ = ()


class OptState(Variable[A]):
    """State of an optimizer; the base type of all of it, and the type of the step count.

    Example:
      >>> import optax
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
      >>> len(nnx.to_flat_state(nnx.state(optimizer, nnx.OptState)))
      4
    """

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"a {type(self).__name__} is an array and no function: `optimizer.step` is the number "
            "of steps so far, and a step is `optimizer.update(model, grads)`"
        )


class OptArray(OptState[A]):
    """State of an optimizer that belongs to no single parameter, such as a count.

    Example:
      >>> import weft as nnx
      >>> nnx.OptArray(0).value
      0
    """

    __slots__ = ()


class OptVariable(OptState[A]):
    """State of an optimizer that mirrors a parameter, such as a moment; carries its metadata.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> nnx.OptVariable(jnp.zeros((2, 3))).shape
      (2, 3)
    """

    __slots__ = ()
