"""Programs: what `jax.jit` compiles for one structure of arguments.

A program's inputs are three lists of arrays: those *donated*, the others that objects hold
(*kept*), and the arguments that are arrays themselves. Its outputs are the new values of the
donated Variables, the other arrays that come out, and a list of Nones whose length says which
*outcome* (of possibly several traces) this is: so that nothing of the output is made by Python
code, which an interrupt could stop half-way.

The first trace of a structure tells what it writes. Its jaxpr is handed to the donating program,
once; every later trace that JAX decides on runs the user's function again, as the context may be
another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu

from weft._graph.records import ARRAY, ArrayDef, Record, ValueDef, VariableDef, iter_records
from weft._lift.lift import Exit, Inside, Lift, Spec
from weft._static import Static
from weft._variable import Variable

DONATED, KEPT, ARRAYS = range(3)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What comes out of a program besides donated Variables.

    Attributes:
      exit: the exit; its `written` lacks the donated Variables.
      treedef: of what the function returns, if these are arrays only.
      numbers: how many arrays belong to each written Variable, one after the other.
      borrowed: which donated Variables get an array that may also be somebody else's.
      is_plain: whether nothing but single arrays in Variables is written back.
      is_array: whether one array is returned and nothing else comes out.
    """

    exit: Exit
    treedef: Any
    numbers: tuple[int, ...]
    borrowed: tuple[int, ...]
    is_plain: bool = dataclasses.field(init=False)
    is_array: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        exit = self.exit
        singles = all(w.treedef is None and w.metadata is None for w in exit.written)
        is_plain = self.treedef is not None and not exit.changed and singles
        is_array = is_plain and not exit.written and exit.out == ARRAY
        object.__setattr__(self, "is_plain", is_plain)
        object.__setattr__(self, "is_array", is_array)


class Handover(NamedTuple):
    """The jaxpr of a first trace, for one use.

    Attributes:
      jaxpr: takes kept arrays and arguments, in the order of the entries.
      outcome: the number of its outcome.
      donated: for each donated Variable, where its value is among the outputs.
    """

    jaxpr: Any
    outcome: int
    donated: tuple[int, ...]


class Program:
    """A function compiled for one structure, with some Variables donated.

    Args:
      lift: the function.
      spec: the structure; its layout is made anew here.
      donated: the entries whose arrays are donated, by position.
      options: of `jax.jit`.
      on_trace: called with the avals of each trace of the user's function, before it runs.
    """

    def __init__(
        self,
        lift: Lift,
        spec: Spec,
        donated: tuple[int, ...],
        options: dict[str, Any],
        on_trace: Callable[[Spec, Any], None],
    ):
        chosen = frozenset(donated)
        layout = tuple(
            DONATED if i in chosen else ARRAYS if group == ARRAYS else KEPT
            for i, group in enumerate(spec.layout)
        )
        self.donated = donated
        self.outcomes: list[Outcome] = []
        self.spec = Spec(spec.record, layout, spec.spots, spec.entries)
        self._lift = lift
        self._on_trace = on_trace
        self._handover: Handover | None = None

        def run(donated: list[Any], kept: list[Any], arrays: list[Any]) -> Any:
            return self._run(donated, kept, arrays)

        run.__name__ = run.__qualname__ = lift.name.rpartition(".")[2]
        self.jitted = jax.jit(run, donate_argnums=0, **options)

    def _run(self, donated: list[Any], kept: list[Any], arrays: list[Any]) -> Any:
        handover, self._handover = self._handover, None
        groups = (donated, kept, arrays)
        if handover is not None:
            inputs = [iter(group) for group in groups]
            flat = self._in_order(inputs, self.spec)
            if [jax.typeof(x) for x in flat] == list(handover.jaxpr.in_avals):
                return self._replay(handover, flat)
        self._on_trace(self.spec, jax.tree.map(jax.typeof, groups))
        inside = self._lift.rebuild(self.spec, groups)
        out = self._lift.run(inside)
        (others,), exit = self._lift.collect(self.spec, inside, out)
        return self._finish(inside, others, exit, out, {id(x) for group in groups for x in group})

    def _in_order(self, inputs: list[Any], spec: Spec) -> list[Any]:
        """Returns kept arrays and arguments in the order that a program without donation has."""
        kept: list[Any] = []
        for number, group in zip(entry_sizes(spec.record), spec.layout, strict=True):
            if group != ARRAYS:
                kept.extend(next(inputs[group]) for _ in range(number))
        return kept + list(inputs[ARRAYS])

    def _replay(self, handover: Handover, flat: list[Any]) -> Any:
        from jax.extend.core import jaxpr_as_fun  # takes long to import

        values = jaxpr_as_fun(handover.jaxpr)(*flat)
        chosen = frozenset(handover.donated)
        others = [value for i, value in enumerate(values) if i not in chosen]
        return [values[i] for i in handover.donated], others, [None] * handover.outcome

    def _finish(
        self, inside: Inside, others: list[Any], exit: Exit, out: Any, inputs: set[int]
    ) -> Any:
        """Parts what comes out of a trace, and remembers what it is."""
        donated_objects = {id(inside.leaves[i]) for i in self.donated}
        written, layout, numbers, rest = [], list(exit.layout), [], iter(others)
        remaining: list[Any] = []
        for w in exit.written:
            number = 1 if w.treedef is None else w.treedef.num_leaves
            leaves = [next(rest) for _ in range(number)]
            if id(inside.objects[w.index]) in donated_objects and w.metadata is None:
                layout.pop()
                continue
            written.append(w)
            numbers.append(number)
            remaining.extend(leaves)
        remaining.extend(rest)
        new = [inside.leaves[i]._raw for i in self.donated]
        seen = set(inputs)
        borrowed = []
        for i, value in enumerate(new):
            if not isinstance(value, jax.core.Tracer) or id(value) in seen:
                borrowed.append(i)
            seen.add(id(value))
        exit = Exit(tuple(written), exit.changed, exit.out, tuple(layout))
        treedef = jtu.tree_structure(out) if _only_arrays(exit.out) else None
        number = self._remember(Outcome(exit, treedef, tuple(numbers), tuple(borrowed)))
        return new, remaining, [None] * number

    def _remember(self, outcome: Outcome) -> int:
        if outcome in self.outcomes:
            return self.outcomes.index(outcome)
        self.outcomes.append(outcome)
        return len(self.outcomes) - 1


def entry_sizes(record: Record) -> list[int]:
    """Returns how many arrays each leaf of a record has."""
    return [
        1 if isinstance(r, ArrayDef) or r.treedef is None else r.treedef.num_leaves
        for _, r in iter_records(record)
        if isinstance(r, (ArrayDef, VariableDef))
    ]


def _only_arrays(record: Record) -> bool:
    if isinstance(record, ValueDef):
        return all(map(_only_arrays, record.children))
    return isinstance(record, ArrayDef) or (isinstance(record, Static) and record.value is None)


def donating(
    plain: Program, groups: Iterable[list[Any]], values: list[Any], make: Callable[..., Program]
) -> Program:
    """Traces a structure, and makes the program that donates the Variables it writes.

    Donated are Variables whose single array keeps its shape and dtype.

    Args:
      plain: the program of the structure that donates nothing.
      groups: its arguments.
      values: what is at each entry: Variables and arrays.
      make: makes a program from the positions of the entries to donate.
    """
    traced = plain.jitted.trace(*groups)
    outcome = plain.outcomes[len(traced.out_info[2])]
    shapes = traced.out_info[1]
    indices = _entries_by_index(plain.spec)
    donated, positions, position = [], [], 0
    for w, size in zip(outcome.exit.written, outcome.numbers, strict=True):
        entry = indices[w.index]
        variable = values[entry]
        is_single = w.treedef is None and w.metadata is None and isinstance(variable, Variable)
        if is_single and _same_aval(variable._slot, shapes[position]):
            donated.append((entry, position, w))
        position += size
    donated.sort(key=lambda item: item[0])
    program = make(tuple(entry for entry, _, _ in donated))
    positions = tuple(position for _, position, _ in donated)
    chosen = {id(w) for _, _, w in donated}
    exit = outcome.exit
    kept = [w for w in exit.written if id(w) not in chosen]
    numbers = tuple(
        n for w, n in zip(exit.written, outcome.numbers, strict=True) if id(w) not in chosen
    )
    layout = exit.layout[len(donated) :]
    jaxpr = traced.jaxpr
    borrowed = _borrowed(jaxpr, positions)
    program.outcomes.append(
        Outcome(Exit(tuple(kept), exit.changed, exit.out, layout), outcome.treedef, numbers, borrowed)
    )
    program._handover = Handover(jaxpr, 0, positions)
    return program


def _entries_by_index(spec: Spec) -> dict[int, int]:
    leaves = [r for _, r in iter_records(spec.record) if isinstance(r, (ArrayDef, VariableDef))]
    return {r.index: i for i, r in enumerate(leaves) if isinstance(r, VariableDef)}


def _same_aval(array: Any, shape: Any) -> bool:
    if not isinstance(array, jax.Array):
        return False
    return array.shape == shape.shape and array.dtype == shape.dtype


def _borrowed(jaxpr: Any, positions: tuple[int, ...]) -> tuple[int, ...]:
    """Finds outputs that are inputs or constants, or that come out twice."""
    inner = jaxpr.jaxpr
    seen = {id(v) for v in (*inner.invars, *inner.constvars)}
    made = {id(v) for equation in inner.eqns for v in equation.outvars}
    found = []
    for i, position in enumerate(positions):
        var = inner.outvars[position]
        if id(var) not in made or id(var) in seen:
            found.append(i)
        seen.add(id(var))
    return tuple(found)
