"""Taking several objects apart, and putting them together, with what they share kept shared.

A *context* is one index space for many calls of `split` or `merge`: an object that an earlier call
has met is only referred to.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Iterator
from typing import Any, overload

from weft._core.filters import Filter, split_flat
from weft._flax_names.round_trips import InnerTable, Refiller, current_update_context
from weft._graph.api import N, leaves_at, own_leaf
from weft._graph.content import Content
from weft._graph.records import GraphDef, VariableDef, leaves_of
from weft._graph.state import FlatState, State
from weft._graph.walk import Builder, Flattener, Table
from weft._variable.variable import Variable


@dataclasses.dataclass
class SplitContext:
    """Splits several objects with one index space; made by `nnx.split_context`.

    Attributes:
      ctxtag: the tag of its update context, if it has one.
      ref_index: the objects met so far.
      is_inner: whether the objects are those of an update context that are inside.

    Example:
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> with nnx.split_context() as ctx:
      ...     graphdef, state = ctx.split(layer)
      ...     again, nothing = ctx.split([layer])
      >>> len(state), len(nothing)
      (2, 0)
    """

    ctxtag: Hashable | None = None
    ref_index: Table = dataclasses.field(default_factory=Table)
    is_inner: bool | None = None

    def _take_apart(self, node: Any) -> Content:
        flattener = Flattener(self.ref_index, root=type(node).__name__)
        return Content(GraphDef(flattener.flatten(node)), flattener.entries)

    @overload
    def split(self, node: N, filter: Filter = ..., /) -> tuple[GraphDef[N], State]: ...
    @overload
    def split(self, node: N, *filters: Filter) -> tuple[GraphDef[N], *tuple[State, ...]]: ...
    def split(self, node: Any, *filters: Filter) -> Any:
        """Takes an object apart; see `nnx.split`. The States have only what is new."""
        content = self._take_apart(node)
        return (content.graphdef, *content.states(filters, exhaustive=True))

    def flatten(self, node: Any, *filters: Filter, with_paths: bool = True) -> Any:
        """Takes an object apart into flat States, or lists of leaves; see `nnx.flatten`."""
        content = self._take_apart(node)
        pairs = content.items()
        flat = [FlatState(g) for g in (split_flat(pairs, filters) if filters else [pairs])]
        return (content.graphdef, *(flat if with_paths else (part.leaves for part in flat)))


@dataclasses.dataclass
class MergeContext:
    """Merges several objects with one index space, in the order in which they were split.

    Made by `nnx.merge_context`.

    Attributes:
      ctxtag: the tag of its update context, if it has one.
      index_ref: the objects made so far, by index.
      is_inner: whether the objects are made inside; None without an update context.

    Example:
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> with nnx.split_context() as ctx:
      ...     parts = [ctx.split(layer), ctx.split([layer])]
      >>> with nnx.merge_context() as ctx:
      ...     one, other = (ctx.merge(*part) for part in parts)
      >>> other[0] is one
      True
    """

    ctxtag: Hashable | None = None
    index_ref: dict[int, Any] = dataclasses.field(default_factory=dict)
    is_inner: bool | None = None

    def merge(self, graphdef: GraphDef[N], state: Any, /, *states: Any) -> N:
        """Makes an object; see `nnx.merge`."""
        remaining = iter(leaves_at(leaves_of(graphdef.root), (state, *states)))

        def variable(record: VariableDef) -> Variable:
            return own_leaf(record, next(remaining), copy=True)

        def array() -> Any:
            return next(remaining)

        if self.is_inner is not False:
            return Builder(variable, array, self.index_ref).build(graphdef.root)
        outer = current_update_context(self.ctxtag).outer or {}
        refiller = Refiller(variable, array, outer, self.index_ref)
        made = refiller.build(graphdef.root)
        refiller.store()
        return made

    def unflatten(self, graphdef: GraphDef[N], flat_state: Any, /, *flat_states: Any) -> N:
        """Makes an object of flat States; see `nnx.unflatten`."""
        return self.merge(graphdef, flat_state, *flat_states)


@contextlib.contextmanager
def split_context(ctxtag: Hashable | None = None) -> Iterator[SplitContext]:
    """Splits several objects such that what they share stays shared.

    Args:
      ctxtag: the tag of an update context, in which objects keep their indices; see
        `nnx.update_context`.

    Raises:
      ValueError: for a tag without an update context.

    Example:
      >>> import weft as nnx
      >>> layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
      >>> with nnx.split_context() as ctx:
      ...     first, second = ctx.split(layer), ctx.split([layer])
      >>> with nnx.merge_context() as ctx:
      ...     a, b = ctx.merge(*first), ctx.merge(*second)
      >>> a is b[0]
      True
    """
    if ctxtag is None:
        yield SplitContext()
        return
    context = current_update_context(ctxtag)
    is_inner = context.inner is not None
    table = InnerTable(context) if is_inner else Table()
    yield SplitContext(ctxtag, table, is_inner)
    if is_inner:
        context.inner = None
    else:
        context.outer = dict(enumerate(table.objects))


@contextlib.contextmanager
def merge_context(
    ctxtag: Hashable | None = None, inner: bool | None = None
) -> Iterator[MergeContext]:
    """Merges several objects that a `split_context` took apart.

    Args:
      ctxtag: the tag of an update context; see `nnx.update_context`.
      inner: with a tag, whether objects are made for a function that is to change them, or those
        outside are filled with what came back of it.

    Raises:
      ValueError: for a tag without an update context or without `inner`.

    Example:
      >>> import weft as nnx
      >>> with nnx.merge_context() as ctx:
      ...     model = ctx.merge(*nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
      >>> model.out_features
      3
    """
    if ctxtag is None:
        yield MergeContext()
        return
    context = current_update_context(ctxtag)
    if inner is None:
        raise ValueError(
            f"merge_context({ctxtag!r}) expects to know on which side it is: "
            f"`nnx.merge_context({ctxtag!r}, inner=True)` in the function, and `inner=False` for "
            "what came back of it"
        )
    merge = MergeContext(ctxtag, {}, inner)
    yield merge
    if inner:
        context.inner = merge.index_ref
