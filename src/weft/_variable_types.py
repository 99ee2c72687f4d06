"""The types of Variables that models are made of: parameters, statistics, caches, what is sown.

A Variable's type says what its value is for; filters select by it.
"""

from __future__ import annotations

from weft._variable import A, Variable


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


class Perturbation(Intermediate[A]):
    """A zero added by `Module.perturb`, whose gradient is that of an intermediate value.

    Example:
      >>> import weft as nnx
      >>> nnx.Perturbation(0.0).value
      0.0
    """

    __slots__ = ()
