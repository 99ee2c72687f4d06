"""What type checkers are told of boxes that act as their value; nothing is here at run time.

The operators of a box are made from tables, which no checker can read. `Declared` says what they
are, as tables again: a *rule* gives the type of an operator by the type of the box's value.
"""

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

import jax
import numpy as np
from jax.typing import ArrayLike

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
OfInt = TypeVar("OfInt")
OfFloat = TypeVar("OfFloat")

class Rule(Generic[OfInt, OfFloat]):
    """An operator: of an array it gives an array, of a number what the two parameters say."""

    @overload
    def __get__(self, box: Declared[jax.Array], kind: Any) -> _ArrayOperator: ...
    @overload
    def __get__(self, box: Declared[int], kind: Any) -> OfInt: ...
    @overload
    def __get__(self, box: Declared[float], kind: Any) -> OfFloat: ...
    @overload
    def __get__(self, box: Any, kind: Any) -> Callable[[Any], Any]: ...

class _IntegerOperator(Protocol):
    @overload
    def __call__(self, other: int | Declared[int], /) -> int: ...
    @overload
    def __call__(self, other: float | Declared[float], /) -> float: ...

arithmetic: Rule[_IntegerOperator, Callable[[_Number], float]]
division: Rule[Callable[[_Number], float], Callable[[_Number], float]]
comparison: Rule[Callable[[_Number], bool], Callable[[_Number], bool]]
of_arrays: Rule[Callable[[Any], Any], Callable[[Any], Any]]

class InPlace:
    """An operator that gives the box itself."""

    def __get__(self, box: A, kind: Any) -> Callable[[Any], A]: ...

in_place: InPlace

class Method(Generic[P, R]):
    """A method of arrays, which a box of an array has too."""

    def __init__(self, method: Callable[Concatenate[jax.Array, P], R]) -> None: ...
    @overload
    def __get__(self, box: Declared[jax.Array], kind: Any) -> Callable[P, R]: ...
    @overload
    def __get__(self, box: Any, kind: Any) -> Any: ...

class Attribute(Generic[R]):
    """An attribute of arrays, which a box of an array has too."""

    @overload
    def __get__(self, box: Declared[jax.Array], kind: Any) -> R: ...
    @overload
    def __get__(self, box: Any, kind: Any) -> Any: ...

class Declared(Generic[A]):
    """What a box can do because its value can."""

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = arithmetic
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = arithmetic
    __truediv__ = __rtruediv__ = division
    __lt__ = __le__ = __gt__ = __ge__ = comparison
    __matmul__ = __rmatmul__ = __pow__ = __rpow__ = of_arrays
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = of_arrays
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = of_arrays
    __iadd__ = __isub__ = __imul__ = __imatmul__ = __itruediv__ = __ifloordiv__ = in_place
    __imod__ = __ipow__ = __ilshift__ = __irshift__ = __iand__ = __ior__ = __ixor__ = in_place

    def __divmod__(self, other: Any) -> tuple[A, A]: ...
    def __rdivmod__(self, other: Any) -> tuple[A, A]: ...
    def __neg__(self) -> A: ...
    def __pos__(self) -> A: ...
    def __invert__(self) -> A: ...
    def __abs__(self) -> A: ...
    def __round__(self, ndigits: int = ...) -> A: ...
    def __trunc__(self) -> Any: ...
    def __floor__(self) -> Any: ...
    def __ceil__(self) -> Any: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __float__(self) -> float: ...
    def __complex__(self) -> complex: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

    T: Attribute[jax.Array]
    mT: Attribute[jax.Array]
    real: Attribute[jax.Array]
    imag: Attribute[jax.Array]
    at: Attribute[Any]

    all = Method(jax.Array.all)
    any = Method(jax.Array.any)
    argmax = Method(jax.Array.argmax)
    argmin = Method(jax.Array.argmin)
    argsort = Method(jax.Array.argsort)
    astype = Method(jax.Array.astype)
    block_until_ready = Method(jax.Array.block_until_ready)
    clip = Method(jax.Array.clip)
    conj = Method(jax.Array.conj)
    cumprod = Method(jax.Array.cumprod)
    cumsum = Method(jax.Array.cumsum)
    diagonal = Method(jax.Array.diagonal)
    dot = Method(jax.Array.dot)
    flatten = Method(jax.Array.flatten)
    item = Method(jax.Array.item)
    max = Method(jax.Array.max)
    mean = Method(jax.Array.mean)
    min = Method(jax.Array.min)
    prod = Method(jax.Array.prod)
    ravel = Method(jax.Array.ravel)
    repeat = Method(jax.Array.repeat)
    reshape = Method(jax.Array.reshape)
    round = Method(jax.Array.round)
    sort = Method(jax.Array.sort)
    squeeze = Method(jax.Array.squeeze)
    std = Method(jax.Array.std)
    sum = Method(jax.Array.sum)
    swapaxes = Method(jax.Array.swapaxes)
    take = Method(jax.Array.take)
    tolist = Method(jax.Array.tolist)
    trace = Method(jax.Array.trace)
    transpose = Method(jax.Array.transpose)
    var = Method(jax.Array.var)

_ArrayOperator = Callable[[ArrayLike | Declared[Any]], jax.Array]
_Number = float | Declared[int] | Declared[float]
