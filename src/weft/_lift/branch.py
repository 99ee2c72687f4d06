"""`cond` and `switch`: branches that may change objects.

JAX needs all branches to return the same. So each branch is traced once, which tells what it
writes; then every branch returns the values of all Variables that any of them writes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

import jax
import numpy as np

from weft._core.arguments import check_arrays
from weft._core.errors import StructureError
from weft._core.path import Path, format_path
from weft._core.tracebacks import boundary
from weft._graph.records import (
    NodeDef,
    Old,
    ValueDef,
    VariableDef,
    children_of,
    describe_difference,
    iter_records,
)
from weft._lift.carry import check_arrays_out
from weft._lift.jit import placing
from weft._lift.jit.spec import Exit, Spec, Written
from weft._lift.lift import (
    Items,
    Lift,
    Mode,
    Places,
    mode_of,
    name_of,
    outcome,
    raw_leaves,
    unbind_all,
    value_from,
)
from weft._lift.memo import run_kept
from weft._lift.naming import names_in, shown_as
from weft._variable.part import aval_text
from weft._variable.variable import Variable

R = TypeVar("R")
Operands = TypeVarTuple("Operands")


class Branch(NamedTuple):
    """A branch that was traced: its jaxpr, the shapes of what it returns, its exit."""

    jaxpr: Any
    shapes: list[Any]
    exit: Exit


@boundary
def cond(
    pred: Any,
    true_fun: Callable[[*Operands], R],
    false_fun: Callable[[*Operands], R],
    *operands: *Operands,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> R:
    """Runs one of two functions, depending on a boolean that may be traced.

    Args:
      pred: a scalar; True chooses `true_fun`.
      true_fun: function of the operands.
      false_fun: likewise; must return the same structure, shapes and dtypes.
      *operands: objects and arrays.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Raises:
      StructureError: if the branches return or write different structures, shapes or dtypes.

    Example:
      >>> import weft as nnx
      >>> count = nnx.Variable(1)
      >>> def double(v): v[...] = v[...] * 2
      >>> nnx.cond(True, double, lambda v: None, count)
      >>> int(count[...])
      2
    """
    branches = (false_fun, true_fun)
    if np.ndim(pred) != 0:
        raise TypeError(
            f"nnx.cond expects one truth value, found an array of shape {np.shape(pred)}: choose "
            "by `jnp.all(...)` or `jnp.any(...)` of it, or element by element by "
            "`jnp.where(pred, x, y)`"
        )
    return _choose("cond", jax.numpy.asarray(pred), branches, operands, graph, graph_updates)


@boundary
def switch(
    index: Any,
    branches: Sequence[Callable[[*Operands], R]],
    *operands: *Operands,
    graph: bool | None = None,
    graph_updates: bool | None = None,
) -> R:
    """Runs one of several functions, chosen by an index that may be traced.

    Args:
      index: an integer scalar, clamped to the range of branches.
      branches: functions of the operands; all must return the same structure, shapes and dtypes.
      *operands: objects and arrays.
      graph: False to refuse shared references; None for the setting.
      graph_updates: False to write back Variables only; None for the setting.

    Raises:
      ValueError: without branches.
      StructureError: if the branches return or write different structures, shapes or dtypes.

    Example:
      >>> import weft as nnx
      >>> nnx.switch(1, [lambda x: x, lambda x: 2 * x], 3).item()
      6
    """
    if not branches:
        raise ValueError("switch needs at least one branch: `nnx.switch(index, [f, g], x)`")
    return _choose("switch", index, tuple(branches), operands, graph, graph_updates)


def _choose(
    transform: str,
    index: Any,
    branches: tuple[Callable[..., Any], ...],
    operands: tuple[Any, ...],
    graph: bool | None,
    graph_updates: bool | None,
) -> Any:
    mode = mode_of(graph, graph_updates)
    for branch in branches:
        if not callable(branch):
            found = aval_text(branch)
            raise TypeError(
                f"nnx.{transform} expects functions of the operands as branches, found {found}: "
                f"give the function and its arguments apart, `nnx.cond(pred, f, g, model, x)`"
            )
    # A bound method's object is an operand like any other, so that its changes are seen.
    functions, holders, places = unbind_all(branches)
    lift = Lift(functions[0], transform, mode, bound=1, skip=len(places[0]) - 1)
    call = lift.enter((holders, *operands))
    check_arrays(transform, lift.name, call.entries)
    options = (transform, mode, places)
    make = functools.partial(_make, *options)
    found = run_kept((*functions, *branches), options, make, call.spec, index, *call.groups)
    return lift.leave(call, *found)


def _make(
    transform: str, mode: Mode, places: Places, *functions: Callable[..., Any]
) -> Callable[..., Any]:
    functions = functions[: len(places)]
    lift = Lift(functions[0], transform, mode, bound=1, skip=len(places[0]) - 1)
    return functools.partial(_run, lift, functions, places)


def _run(
    lift: Lift,
    functions: tuple[Callable[..., Any], ...],
    places: Places,
    spec: Spec,
    index: Any,
    *groups: Any,
) -> tuple[list[list[Any]], Exit]:
    pairs = list(zip(functions, places, strict=True))
    traced = [_trace(lift, f, place, spec, groups) for f, place in pairs]
    changes = [branch.exit.changed for branch in traced]
    if any(changed != changes[0] for changed in changes):
        # What one branch changes comes out of all of them.
        also = frozenset(
            (change.index, key)
            for changed in changes
            for change in changed
            for key, child in zip(change.keys, change.children, strict=True)
            if not isinstance(child, Old)
        )
        traced = [_trace(lift, f, place, spec, groups, also) for f, place in pairs]
    names = [name_of(f) for f in functions]
    union = _union(lift, names, spec, traced)
    leaves = _leaves_of_variables(lift, spec, groups)

    def returning_all(branch: Branch) -> Callable[..., Any]:
        def run(groups: Any) -> list[Any]:
            from weft._core.jax_names import jaxpr_as_fun  # takes long to import

            remaining = iter(jaxpr_as_fun(branch.jaxpr)(*jax.tree.leaves(groups)))
            written = {w.index: _take_all(w, remaining) for w in branch.exit.written}
            unwritten = _leaves_of_variables(lift, spec, groups)
            all_written = [written.get(w.index) or unwritten[w.index] for w in union]
            return [array for arrays in all_written for array in arrays] + list(remaining)

        return run

    first = traced[0].exit
    _check_written(lift, names, spec, traced, union)
    _check_shapes(lift, names, spec, traced, union, leaves)
    runs = [returning_all(branch) for branch in traced]
    agreed = placing.agree(runs, groups)
    if agreed is not None:
        runs = [functools.partial(_run_placed, run, agreed) for run in runs]
    if lift.transform == "cond":
        arrays = jax.lax.cond(index, runs[1], runs[0], groups)
    else:
        arrays = jax.lax.switch(index, runs, groups)
    number = len(first.written)
    grouping = (0,) * (len(union) + len(first.grouping) - number)
    return [arrays], Exit(tuple(union), first.changed, first.out, grouping)


def _run_placed(run: Callable[..., Any], places: placing.Places, groups: Any) -> Any:
    return placing.put(run(groups), places)


def _trace(
    lift: Lift,
    f: Callable[..., Any],
    place: tuple[int, ...],
    spec: Spec,
    groups: Any,
    also: Items = frozenset(),
) -> Branch:
    def pure(groups: Any) -> Any:
        inside = lift.rebuild(spec, groups)
        holders, *operands = inside.args
        args = (*(holders[i] for i in place), *operands)
        out = lift.run(inside._replace(args=args), f)
        arrays, exit = lift.collect(spec, inside, out, also)
        check_arrays_out(lift, spec, exit, arrays)
        return arrays, exit

    shown = shown_as(f, pure, lambda _: names_in(spec))
    jaxpr, (shapes, exit) = jax.make_jaxpr(shown, return_shape=True)(groups)
    return Branch(jaxpr, shapes[0], exit)


def _take_all(written: Written, values: Any) -> list[Any]:
    return jax.tree.leaves(value_from(written.treedef, values))


def _leaves_of_variables(lift: Lift, spec: Spec, groups: Any) -> dict[int, list[Any]]:
    objects = lift.rebuild(spec, groups).objects
    return {i: raw_leaves(obj) for i, obj in enumerate(objects) if isinstance(obj, Variable)}


def _union(lift: Lift, names: list[str], spec: Spec, traced: list[Branch]) -> list[Written]:
    """Joins what the branches write, and checks that all else is the same."""
    first = traced[0].exit
    written: dict[int, Written] = {}
    for name, branch in zip(names, traced, strict=True):
        exit = branch.exit
        difference = describe_difference(first.out, exit.out, ("output",))
        if difference is not None:
            path, expected, found = difference
            raise StructureError(
                f"the branches of nnx.{lift.transform} must return the same structure: at "
                f"{format_path(path)} {names[0]!r} returns {expected} and {name!r} {found}"
            )
        difference = _difference_of_changes(spec, first, exit)
        if difference is not None:
            path, expected, found = difference
            raise StructureError(
                f"the branches of nnx.{lift.transform} must change structure alike: "
                f"{format_path(path)} is {expected} after {names[0]!r} and {found} after {name!r}. "
                "Set the attribute before the call, and hold what changes in a Variable"
            )
        for w in exit.written:
            written.setdefault(w.index, w)
    return [written[index] for index in sorted(written)]


def _difference_of_changes(spec: Spec, a: Exit, b: Exit) -> tuple[Path, str, str] | None:
    """Finds the first attribute that two branches leave different."""
    nodes = {r.index: r for _, r in iter_records(spec.record) if isinstance(r, NodeDef)}

    def items(exit: Exit, index: int) -> ValueDef:
        before = dict(children_of(nodes[index]))
        for change in exit.changed:
            if change.index == index:
                pairs = zip(change.keys, change.children, strict=True)
                now = {k: before[k] if isinstance(c, Old) else c for k, c in pairs}
                return ValueDef(change.extra, tuple(now), tuple(now.values()))
        return ValueDef(nodes[index].extra, tuple(before), tuple(before.values()))

    for index in sorted({change.index for change in (*a.changed, *b.changed)}):
        path = spec.spots[index].path
        found = describe_difference(items(a, index), items(b, index), path)
        if found is not None:
            return found
    return None


def _check_written(
    lift: Lift, names: list[str], spec: Spec, traced: list[Branch], union: list[Written]
) -> None:
    """Raises where a Variable would be left with another structure or metadata by a branch."""
    entered = {r.index: r for _, r in iter_records(spec.record) if isinstance(r, VariableDef)}
    for first in union:
        as_before = Written(first.index, entered[first.index].treedef, None)
        sides: dict[Any, str] = {}
        for name, branch in zip(names, traced, strict=True):
            mine = [w for w in branch.exit.written if w.index == first.index]
            _, treedef, metadata = mine[0] if mine else as_before
            metadata = metadata or entered[first.index].metadata
            sides.setdefault((treedef, metadata), name)
        if len(sides) > 1:
            where = format_path(spec.spots[first.index].path)
            shown = " and ".join(
                f"{treedef or 'an array'}, metadata {metadata.value} in {name!r}"
                for (treedef, metadata), name in sides.items()
            )
            raise StructureError(
                f"the branches of nnx.{lift.transform} leave {where} with different structure or "
                f"metadata: {shown}. Set metadata before the call, and keep the structure"
            )


def _check_shapes(
    lift: Lift,
    names: list[str],
    spec: Spec,
    traced: list[Branch],
    union: list[Written],
    unwritten: dict[int, list[Any]],
) -> None:
    """Raises where the arrays of a Variable or of what is returned differ between branches."""
    left: dict[Path, dict[tuple[str, ...], str]] = {}
    for name, branch in zip(names, traced, strict=True):
        shapes = iter(branch.shapes)
        values = {w.index: _take_all(w, shapes) for w in branch.exit.written}
        for w in union:
            arrays = values.get(w.index, unwritten.get(w.index))
            left.setdefault(spec.spots[w.index].path, {}).setdefault(_types(arrays), name)
        for path, treedef in list(outcome(spec, branch.exit))[len(branch.exit.written) :]:
            arrays = jax.tree.leaves(value_from(treedef, shapes))
            left.setdefault(path, {}).setdefault(_types(arrays), name)
    for path, types in left.items():
        if len(types) > 1:
            sides = " and ".join(f"{', '.join(found)} in {name!r}" for found, name in types.items())
            raise StructureError(
                f"the branches of nnx.{lift.transform} leave {format_path(path)} with different "
                f"shapes or dtypes: {sides}. Convert it in the branch, `x.astype(dtype)`"
            )


def _types(arrays: Any) -> tuple[str, ...]:
    avals = map(jax.typeof, arrays)
    return tuple(f"{x.dtype.name}[{','.join(map(str, x.shape))}]" for x in avals)
