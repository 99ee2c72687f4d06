"""Handovers: a trace of the user's function, made by one program and used once by another.

The program that donates is never traced through the user's function: it is handed the trace of the
one that does not, in the call that the trace was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.tree_util as jtu
import numpy as np

from weft._core.static import Static
from weft._graph.records import ArrayDef, VariableDef, iter_records
from weft._lift.jit.callbacks import has_callbacks
from weft._lift.jit.outcome import Outcome, find_outcome
from weft._lift.jit.spec import Exit, Groups, Spec
from weft._variable.keeper import is_part
from weft._variable.variable import Variable

if TYPE_CHECKING:
    from weft._lift.jit.program import Program


class Handover(NamedTuple):
    """A trace, for one use in the call that needed it.

    Attributes:
      avals: of kept arrays and arguments, in the order of the entries.
      call: does with such arrays what was traced; returns the groups of what comes out.
      donated: for each donated Variable the group and the place of its value there, None where it
        stays as it is.
      outcome: what comes out besides.
    """

    avals: list[Any]
    call: Callable[[list[Any]], Groups]
    donated: tuple[tuple[int, int] | None, ...]
    outcome: Outcome


class Trace:
    """A trace of a plain program, before the function is run.

    Attributes:
      program: the program.
      spec: of the call that it was made for.
      traced: JAX's stage.
      outcome: what comes out, None if it is whole.
      has_callbacks: whether the function calls back to the host.
    """

    def __init__(self, program: Program, spec: Spec, traced: Any):
        self.program = program
        self.spec = spec
        self.traced = traced
        self.outcome = find_outcome(program.outcomes, traced.out_info)
        self.has_callbacks = has_callbacks(traced.jaxpr)

    def _places(self, values: Sequence[Any]) -> dict[int, tuple[int, int] | None]:
        """Returns where the new values of entries are, None for what is no array of old aval.

        Args:
          values: what is at each entry: Variables and others.
        """
        if self.outcome is None:  # nothing is written
            return {}
        exit = self.outcome.exit
        treedef = jtu.tree_structure(self.traced.out_info)  # which lacks some shardings
        groups = self.program.options.groups_of(
            jtu.tree_unflatten(treedef, self.traced.jaxpr.out_avals)[1]
        )
        indices = _entries_by_index(self.program.spec)
        positions = [0] * len(groups)
        found: dict[int, tuple[int, int] | None] = {}
        for w, group in zip(exit.written, exit.grouping, strict=False):
            entry, position = indices[w.index], positions[group]
            variable = values[entry]
            is_single = w.treedef is None and w.metadata is None and isinstance(variable, Variable)
            may_take = is_single and not is_part(variable)
            same = may_take and _same_aval(variable._slot, groups[group][position])
            found[entry] = (group, position) if same else None
            positions[group] += 1 if w.treedef is None else w.treedef.num_leaves
        return found

    def prepare(self, donating: Program | None, values: Sequence[Any]) -> Program:
        """Returns the program that donates what is written, with this trace for its next call.

        Donated are Variables whose single array keeps its shape and dtype; of the program that
        there is already, no other ones.

        Args:
          donating: that of earlier traces, if any.
          values: what is at each entry: Variables and others.
        """
        places = self._places(values)
        if donating is not None and donating.donated:
            donated = [i for i in donating.donated if places.get(i, ()) is not None]
        else:
            entries = zip(values, self.program.spec.entries, strict=True)
            options = self.program.options
            may_go = [options.donates or options.is_given(entry.path) for _, entry in entries]
            donated = sorted(i for i, place in places.items() if place is not None and may_go[i])
        if donating is None or donating.donated != tuple(donated):
            donating = self.program.with_donated(tuple(donated))
        if donated:
            donating.has_effects |= bool(self.traced.jaxpr.effects)
            donating.handovers[get_ident()] = self._handover(donating, places)
        return donating

    def _handover(self, donating: Program, places: dict[int, Any]) -> Handover:
        indices = _entries_by_index(self.program.spec)
        chosen = frozenset(donating.donated)
        if self.outcome is None:  # whole, so what comes out is not in the groups
            out = self.traced.out_info
            out = out[1] if type(out) is tuple else out
            treedef = jtu.tree_structure(out)
            exit = Exit((), (), Static(None), (0,) * treedef.num_leaves)
        else:
            exit, treedef = self.outcome.exit, self.outcome.treedef
        kept = [i for i, w in enumerate(exit.written) if indices[w.index] not in chosen]
        written = tuple(exit.written[i] for i in kept)
        rest = exit.grouping[len(exit.written) :]
        exit = Exit(written, exit.changed, exit.out, (*(exit.grouping[i] for i in kept), *rest))
        # What came out of a program that donates is stored before code of the user's runs.
        may_be_whole = not donating.options.is_sharded and _is_builtin(treedef)
        return Handover(
            avals=list(self.traced.jaxpr.in_avals),
            call=self._call,
            donated=tuple(places.get(entry) for entry in donating.donated),
            outcome=Outcome(exit, treedef, False, may_be_whole),
        )

    def _call(self, flat: list[Any]) -> Groups:
        """Does inside another trace what was traced."""
        program = self.program
        if program.is_nestable:  # JAX finds the trace in its cache
            number = len(flat) - program.rest.num_leaves
            rest, named = jtu.tree_unflatten(program.rest, flat[number:])
            with program.tracing(self.spec):
                out = program.jitted(flat[:number], *rest, **named)
            leaves = jtu.tree_leaves(out)
        else:
            from weft._core.jax_names import jaxpr_as_fun  # takes long to import

            leaves = jaxpr_as_fun(self.traced.jaxpr)(*flat)
            out = jtu.tree_unflatten(jtu.tree_structure(self.traced.out_info), leaves)
        return [leaves] if self.outcome is None else program.options.groups_of(out[1])


def _is_builtin(treedef: Any) -> bool:
    """Returns whether JAX puts a pytree together without code of the user's."""
    if treedef is None:
        return False
    data = treedef.node_data()
    kind = type(None) if data is None else data[0]
    return kind in (tuple, list, dict, type(None)) and all(map(_is_builtin, treedef.children()))


def _entries_by_index(spec: Spec) -> dict[int, int]:
    leaves = [r for _, r in iter_records(spec.record) if isinstance(r, (ArrayDef, VariableDef))]
    return {r.index: i for i, r in enumerate(leaves) if isinstance(r, VariableDef)}


def _same_aval(array: Any, new: Any) -> bool:
    """Returns whether an array may take the place of another one in memory.

    On explicit axes of a mesh that takes parts of the same shape on each device.
    """
    if not isinstance(array, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return False
    aval = jax.typeof(array)
    found = getattr(new, "shape", None), getattr(new, "dtype", None)
    return found == (aval.shape, aval.dtype) and _shard_shape(aval) == _shard_shape(new)


def _shard_shape(aval: Any) -> Any:
    return aval.sharding.shard_shape(aval.shape)
