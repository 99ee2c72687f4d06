"""Patterns: the form of a call's arguments, apart from what is in its objects.

A *root* is an object or Variable among the arguments; the *rest* is what JAX is given besides the
arrays of the roots. Calls of one pattern have their roots at the same places, and a rest of the
same structure.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.tree_util as jtu

from weft._core.types import Root

is_root = Root.__instancecheck__
"""Returns whether an argument is an object or Variable rather than an array; runs in C."""


class Pattern(NamedTuple):
    """The form of a call's arguments.

    Attributes:
      treedef: the structure around objects and arrays.
      roots: where the objects are: positions among the positional arguments if all of them are
        such arguments, else among the leaves.
      is_flat: whether it is the former; then JAX is given the other arguments as they are.
      others: positions of the other positional arguments, or of the arrays among the leaves.
      arity: how many positional arguments there are.
      rest: the structure of what JAX is given.
    """

    treedef: Any
    roots: tuple[int, ...]
    is_flat: bool
    others: tuple[int, ...]
    arity: int
    rest: Any

    def rest_of(self, args: Sequence[Any], kwargs: dict[str, Any], leaves: Sequence[Any]) -> Any:
        """Returns what JAX is given besides the arrays that objects hold."""
        if self.is_flat:
            return getter(self.others)(tuple(args)), kwargs
        return getter(self.others)(tuple(leaves)), {}


def pattern_of(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    leaves: Sequence[Any],
    treedef: Any,
    needs_leaves: bool = False,
) -> Pattern:
    """Returns the form of arguments that were taken apart.

    Args:
      args: the positional arguments.
      kwargs: the others.
      leaves: the objects and arrays in both.
      treedef: the structure around these.
      needs_leaves: whether JAX is to be given nothing but single arrays, by position.
    """
    number = sum(map(is_root, leaves))
    roots = tuple(i for i, x in enumerate(args) if is_root(x))
    is_flat = len(roots) == number and not (needs_leaves and (kwargs or len(args) != len(leaves)))
    if not is_flat:
        roots = tuple(i for i, leaf in enumerate(leaves) if is_root(leaf))
    others = set(range(len(args) if is_flat else len(leaves))).difference(roots)
    pattern = Pattern(treedef, roots, is_flat, tuple(sorted(others)), len(args), None)
    rest = jtu.tree_structure(pattern.rest_of(args, kwargs, leaves))
    return pattern._replace(rest=rest)


def getter(positions: tuple[int, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Returns what returns the elements of a tuple at some positions, in order, as a tuple."""
    first, number = min(positions, default=0), len(positions)
    if positions == tuple(range(first, first + number)):
        return operator.itemgetter(slice(first, first + number))
    return operator.itemgetter(*positions)
