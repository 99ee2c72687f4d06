"""Modes of Variables that other libraries have and Weft does not need.

In the peer a Variable may be a JAX reference (`ref`) or an experimental box that JAX knows
(`hijax`). A Weft Variable is a plain Python box under every transform, so these functions accept
what asks for nothing else, and say so where something else is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from weft._core.filters import Filter, to_predicate
from weft._graph.api import clone
from weft._variable.variable import check_no_reference_modes

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])


class VarDefaults(Mapping[str, bool]):
    """The modes in force, all False; as context manager or decorator it changes nothing.

    Example:
      >>> import weft as nnx
      >>> dict(nnx.var_defaults())
      {'hijax': False, 'ref': False}
    """

    hijax = False
    ref = False

    def __getitem__(self, name: str) -> bool:
        if name not in ("hijax", "ref"):
            raise KeyError(name)
        return False

    def __iter__(self) -> Iterator[str]:
        return iter(("hijax", "ref"))

    def __len__(self) -> int:
        return 2

    def __call__(self, function: F, /) -> F:
        return function

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None

    def __repr__(self) -> str:
        return "VarDefaults(hijax=False, ref=False)"


def var_defaults(*, hijax: bool | None = None, ref: bool | None = None) -> VarDefaults:
    """Returns the modes of new Variables: always plain boxes.

    Args:
      hijax: None or False.
      ref: None or False.

    Raises:
      ValueError: for True.

    Example:
      >>> import weft as nnx
      >>> with nnx.var_defaults(hijax=False):
      ...     nnx.Param(1.0).hijax
      False
    """
    check_no_reference_modes(hijax=hijax, ref=ref)
    return VarDefaults()


def with_vars(
    node: A,
    /,
    *,
    hijax: bool | None = None,
    ref: bool | None = None,
    mutable: bool | None = None,
    only: Filter = ...,
    allow_duplicates: bool = False,
) -> A:
    """Returns a copy of a model around the same Variables, which are plain boxes already.

    Args:
      node: a model, or a pytree of objects.
      hijax: None or False.
      ref: None or False.
      mutable: None or True: a Variable can always be written.
      only: which Variables are meant; accepted for compatibility.
      allow_duplicates: accepted for compatibility: shared references are kept.

    Raises:
      ValueError: for `hijax=True`, `ref=True` or `mutable=False`.

    Example:
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.with_vars(model, ref=False).kernel is model.kernel
      True
    """
    check_no_reference_modes(hijax=hijax, ref=ref)
    if mutable is False:
        raise ValueError(
            "mutable=False is not supported: a Weft Variable can always be written. Hand out a "
            "copy, `nnx.clone(model)`, to keep the original as it is"
        )
    to_predicate(only)
    return clone(node, variables=False)


vars_as = with_vars
