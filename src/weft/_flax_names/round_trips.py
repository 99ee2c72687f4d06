"""Round trips: objects go through a function of values, and come back as the objects they were.

Outside, objects are split, and the *outer* objects noted; inside, they are merged, and the *inner*
objects noted; these are split such that an index means the same object on both sides; and outside
again, the outer objects are filled with what came back. Transforms do this themselves, and better,
as they return what was written alone; this is for code that does it by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Hashable, Iterator
from typing import Any

from weft._core.static import Static
from weft._core.types import MISSING
from weft._graph.records import NodeDef, Record, VariableDef
from weft._graph.walk import Builder, Table
from weft._graph.write_back import write_back
from weft._variable.variable import Variable


@dataclasses.dataclass
class UpdateContext:
    """One round trip; made by `nnx.update_context`.

    Attributes:
      tag: its name.
      outer: the objects outside, by index; None before they are split.
      inner: the objects inside, by index; None while there are none.

    Example:
      >>> import weft as nnx
      >>> with nnx.update_context("step") as context:
      ...     with nnx.split_context("step") as ctx:
      ...         parts = ctx.split(nnx.Param(1.0))
      >>> context.outer
      {0: Param(1.0)}
    """

    tag: Hashable
    outer: dict[int, Any] | None = None
    inner: dict[int, Any] | None = None


class _Active(threading.local):
    def __init__(self) -> None:
        self.by_tag: dict[Hashable, list[UpdateContext]] = {}


_active = _Active()


@contextlib.contextmanager
def update_context(tag: Hashable) -> Iterator[UpdateContext]:
    """Lets objects make a round trip through a function of values, in place.

    Within it, `split_context(tag)` and `merge_context(tag, inner)` with the same tag belong
    together, and so do `to_tree` and `from_tree` with it as `ctxtag`. It may decorate a function.
    `nnx.jit` and the other transforms do all of this themselves.

    Args:
      tag: a name.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> @jax.jit
      ... def double(graphdef, state):
      ...     with nnx.merge_context("double", inner=True) as ctx:
      ...         model = ctx.merge(graphdef, state)
      ...     model.kernel[...] *= 2
      ...     model.name = "doubled"
      ...     with nnx.split_context("double") as ctx:
      ...         return ctx.split(model)
      >>> with nnx.update_context("double"):
      ...     with nnx.split_context("double") as ctx:
      ...         parts = ctx.split(model)
      ...     parts = double(*parts)
      ...     with nnx.merge_context("double", inner=False) as ctx:
      ...         same = ctx.merge(*parts)
      >>> same is model, model.name
      (True, 'doubled')
    """
    contexts = _active.by_tag.setdefault(tag, [])
    contexts.append(UpdateContext(tag))
    try:
        yield contexts[-1]
    finally:
        contexts.pop()


def current_update_context(tag: Hashable) -> UpdateContext:
    """Returns the innermost context of a tag.

    Raises:
      ValueError: if there is none.

    Example:
      >>> import weft as nnx
      >>> with nnx.update_context("step") as ctx:
      ...     nnx.current_update_context("step") is ctx
      True
    """
    contexts = _active.by_tag.get(tag)
    if not contexts:
        raise ValueError(
            f"expected to be in an update context of the tag {tag!r}, found none: "
            f"`with nnx.update_context({tag!r}):`"
        )
    return contexts[-1]


class InnerTable(Table):
    """Gives inner objects the indices of the outer ones, and new ones the next."""

    __slots__ = ("_known", "_next")

    def __init__(self, context: UpdateContext):
        super().__init__()
        self._known = {id(obj): index for index, obj in (context.inner or {}).items()}
        self._next = max(context.outer or (), default=-1) + 1

    def add(self, obj: Any) -> int:
        index = self._known.get(id(obj), self._next)
        self._next += index == self._next
        self.objects.append(obj)
        self.indices[id(obj)] = index
        return index


class Refiller(Builder):
    """Makes what records describe, and fills the outer objects among it only when all is made.

    Args:
      variable: makes the Variable of a `VariableDef`.
      array: returns the next array.
      outer: the objects outside, by index.
      index_ref: what has been made so far; outer objects are in it.
    """

    def __init__(self, variable: Any, array: Any, outer: dict[int, Any], index_ref: dict[int, Any]):
        super().__init__(variable, array, index_ref)
        self._outer = outer
        self._writes: list[tuple[Variable, Variable]] = []
        self._refills: list[tuple[Any, list[tuple[Any, Any]], NodeDef]] = []
        index_ref.update(outer)

    def build(self, record: Record, old: dict[Any, Any] | None = None) -> Any:
        target = self._outer.get(getattr(record, "index", -1), MISSING)
        if target is not MISSING and isinstance(record, VariableDef):
            self._writes.append((target, self.variable(record)))
            return target
        if target is not MISSING and isinstance(record, NodeDef):
            pairs = zip(record.keys, record.children, strict=True)
            items = [(key, self.build(child)) for key, child in pairs]
            self._refills.append((target, items, record))
            return target
        return super().build(record, old)

    def store(self) -> None:
        """Writes into the outer objects, or raises without writing anything."""
        writes = [(old, new._raw, Static(new._metadata)) for old, new in self._writes]
        write_back(writes, self._refills)
