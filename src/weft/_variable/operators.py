"""What makes a box act as the value in it: operators, indexing, conversion.

Every operator reads the value through `get_value`; the in-place ones write the result back through
`set_value`. They are made from tables of the `operator` module's functions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import jax
import jax.tree_util as jtu
import numpy as np

from weft._core.tracebacks import trim

if TYPE_CHECKING:
    from weft._variable.operator_types import Declared  # pyright: ignore[reportMissingModuleSource]
else:
    Declared = Generic

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")


class ValueOperators(Declared[A]):
    """Base of boxes with `get_value` and `set_value` that shall act as their value."""

    __slots__ = ()

    __array_priority__ = 100  # `numpy_array * box` is the box's affair, which may be traced

    get_value: Callable[..., Any]
    set_value: Callable[..., None]

    @overload
    def __getitem__(self: ValueOperators[jax.Array], key: Any) -> jax.Array: ...
    @overload
    def __getitem__(self, key: EllipsisType) -> A: ...
    @overload
    def __getitem__(self: ValueOperators[dict[Any, B]], key: Any) -> B: ...
    @overload
    def __getitem__(self: ValueOperators[list[B]], key: int) -> B: ...
    @overload
    def __getitem__(self: ValueOperators[tuple[B, ...]], key: int) -> B: ...
    @overload
    def __getitem__(self, key: Any) -> Any: ...
    def __getitem__(self, key: Any) -> Any:
        return self.get_value(index=key)

    def __setitem__(self, key: Any, value: Any) -> None:
        try:
            self.set_value(value, index=key)
        except Exception as error:
            trim(error)
            raise

    def __delitem__(self, key: Any) -> None:
        container = self.get_value().copy()
        del container[key]
        self.set_value(container)

    def __call__(self: ValueOperators[Callable[P, B]], *args: P.args, **kwargs: P.kwargs) -> B:
        return self.get_value()(*args, **kwargs)

    def __len__(self) -> int:
        return len(self.get_value())

    @overload
    def __iter__(self: ValueOperators[jax.Array]) -> Iterator[jax.Array]: ...
    @overload
    def __iter__(self) -> Iterator[Any]: ...
    def __iter__(self) -> Iterator[Any]:
        return iter(self.get_value())

    def __contains__(self, item: Any) -> bool:
        return item in self.get_value()

    def __jax_array__(self) -> jax.Array:
        return jax.numpy.asarray(self.get_value())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.get_value(), dtype=dtype, copy=copy)

    # How other libraries, PyTorch among them, take over the memory of an array.
    def __dlpack__(self, **options: Any) -> Any:
        return _exported(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[Any, int]:
        return _exported(self).__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.get_value().__cuda_array_interface__

    def __format__(self, spec: str) -> str:
        return format(self.get_value(), spec) if spec else str(self)

    def __bool__(self) -> bool:
        value = self.get_value()
        if _is_parameter(value):
            return True
        try:
            return bool(value)
        except jax.errors.TracerBoolConversionError as error:
            error.add_note(
                f"The value is that of a {type(self).__name__}. Python's `if`, `and`, `or` and "
                "`not` need a concrete value; choose with `jnp.where(condition, a, b)` or "
                "`jax.lax.cond(condition, true_fun, false_fun)`."
            )
            raise

    @overload
    def __eq__(self: ValueOperators[jax.Array], other: object) -> jax.Array: ...
    @overload
    def __eq__(self, other: object) -> Any: ...
    def __eq__(self, other: object) -> Any:
        value, other = self.get_value(), value_of(other)
        return value == other if jtu.all_leaves((value,)) else same_tree(value, other)

    @overload
    def __ne__(self: ValueOperators[jax.Array], other: object) -> jax.Array: ...
    @overload
    def __ne__(self, other: object) -> Any: ...
    def __ne__(self, other: object) -> Any:
        value, other = self.get_value(), value_of(other)
        return value != other if jtu.all_leaves((value,)) else not same_tree(value, other)

    __hash__ = None  # type: ignore[assignment]  # `==` compares values


def _exported(box: ValueOperators) -> Any:
    value = box.get_value()
    return value if hasattr(value, "__dlpack__") else jax.numpy.asarray(value)


def _is_parameter(value: Any) -> bool:
    """Returns whether `if box:` asks if there is a parameter, whatever its elements are."""
    if isinstance(value, (float, complex)):
        return True
    dtype = getattr(value, "dtype", None)
    kinds = (jax.numpy.inexact, jax.dtypes.extended)
    return dtype is not None and any(jax.dtypes.issubdtype(dtype, kind) for kind in kinds)


def value_of(x: Any) -> Any:
    """Returns the value of a box, and anything else as it is."""
    return x.get_value() if isinstance(x, ValueOperators) else x


def same_tree(a: Any, b: Any) -> bool:
    """Returns whether two pytrees have one structure and equal leaves."""
    old, old_treedef = jtu.tree_flatten(a)
    new, new_treedef = jtu.tree_flatten(b)
    return old_treedef == new_treedef and all(map(_same_leaf, old, new))


def _same_leaf(a: Any, b: Any) -> bool:
    return a is b or (np.shape(a) == np.shape(b) and bool(jax.numpy.all(a == b)))


def _binary(function: Callable) -> Callable:
    return lambda self, other: function(self.get_value(), value_of(other))


def _reflected(function: Callable) -> Callable:
    return lambda self, other: function(value_of(other), self.get_value())


def _in_place(function: Callable) -> Callable:
    def method(self: ValueOperators, other: Any) -> ValueOperators:
        self.set_value(function(self.get_value(), value_of(other)))
        return self

    return method


def _unary(function: Callable) -> Callable:
    return lambda self, *args: function(self.get_value(), *args)


_ARITHMETIC = "add sub mul matmul truediv floordiv mod pow lshift rshift and_ xor or_".split()
_COMPARISONS = "lt le gt ge".split()
_UNARY: dict[str, Callable] = {
    "neg": operator.neg,
    "pos": operator.pos,
    "invert": operator.invert,
    "abs": abs,
    "complex": complex,
    "float": float,
    "int": int,
    "index": operator.index,
    "round": round,
    **{name: getattr(math, name) for name in "trunc floor ceil".split()},
}


def _install() -> None:
    for name in _ARITHMETIC:
        function, stem = getattr(operator, name), name.rstrip("_")
        setattr(ValueOperators, f"__{stem}__", _binary(function))
        setattr(ValueOperators, f"__r{stem}__", _reflected(function))
        setattr(ValueOperators, f"__i{stem}__", _in_place(function))
    for name in _COMPARISONS:
        setattr(ValueOperators, f"__{name}__", _binary(getattr(operator, name)))
    ValueOperators.__divmod__ = _binary(divmod)  # type: ignore[attr-defined]
    ValueOperators.__rdivmod__ = _reflected(divmod)  # type: ignore[attr-defined]
    for name, function in _UNARY.items():
        setattr(ValueOperators, f"__{name}__", _unary(function))


_install()
