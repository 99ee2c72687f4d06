"""Programs: what `jax.jit` compiles for one structure of arguments.

A program's inputs are the arrays that objects hold, in two lists, those *donated*, if there are
any, and the others (*kept*), and the other arguments as they are. Its outputs are the new values of
the donated Variables, the other arrays that come out, and a list of Nones whose length says which
*outcome* (of possibly several traces) this is: so that nothing of the output is made by Python
code, which an interrupt could stop half-way. Where no more comes out than what the function
returns, and that is arrays, the outcome is *whole*: then this itself is all that follows the
donated Variables, and a single array of a program without donation comes alone.

The first trace of a structure tells what it writes. Its jaxpr is handed to the donating program,
once; every later trace that JAX decides on runs the user's function again, as the context may be
another.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu
import numpy as np

from weft._graph.records import ARRAY, ArrayDef, Record, ValueDef, VariableDef, iter_records
from weft._lift.interrupts import HeldInterrupts
from weft._lift.lift import Exit, Inside, Lift, Spec, Written
from weft._static import Static
from weft._variable import Variable

DONATED, KEPT, ARRAYS = range(3)
_config: Any = jax.config


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What comes out of a program besides donated Variables.

    Attributes:
      exit: the exit; its `written` lacks the donated Variables.
      treedef: of what the function returns, if these are arrays only.
      is_eager: whether nothing was compiled, so that arrays may come out that went in.
      is_plain: whether nothing but single arrays in Variables is written back.
      is_whole: whether nothing but what the function returns comes out of a compiled program.
    """

    exit: Exit
    treedef: Any
    is_eager: bool
    is_plain: bool = dataclasses.field(init=False)
    is_whole: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        exit = self.exit
        singles = all(w.treedef is None and w.metadata is None for w in exit.written)
        is_plain = self.treedef is not None and not exit.changed and singles
        object.__setattr__(self, "is_plain", is_plain)
        object.__setattr__(self, "is_whole", is_plain and not exit.written and not self.is_eager)


class Handover(NamedTuple):
    """A first trace, for one use in the call that traced it.

    Attributes:
      avals: of kept arrays and arguments, in the order of the entries.
      call: does with such arrays what was traced; returns a list.
      donated: for each donated Variable, where its value is among the outputs.
      outcome: what comes out besides.
      thread: the thread of the call; another may have other settings.
    """

    avals: list[Any]
    call: Callable[[list[Any]], list[Any]]
    donated: tuple[int, ...]
    outcome: Outcome
    thread: int


class UndonatableError(Exception):
    """Ends a trace that writes another shape or dtype to Variables that are donated.

    Attributes:
      entries: the entries of these Variables.
    """

    def __init__(self, entries: frozenset[int]):
        super().__init__()
        self.entries = entries


class NotCompiledError(Exception):
    """Ends a call of a program that donates where JAX compiles nothing, and so donates nothing."""


class FormError(Exception):
    """Ends the trace of a call that has another form than the program is for."""


class Program:
    """A function compiled for one structure, with some Variables donated.

    Args:
      lift: the function.
      spec: the structure; its layout is made anew here.
      rest: the structure of the arguments that are no objects.
      donated: the entries whose arrays are donated, by position.
      options: of `jax.jit`.
      on_trace: called with the avals of each trace of the user's function, before it runs.

    Attributes:
      jitted: the compiled function.
      outcomes: what came out of the traces.
      handover: the first trace, as long as the call lasts that traced it.
      is_reading: whether there are arrays of objects besides the donated ones.
      has_effects: whether each call goes through Python code of JAX, for the sake of callbacks.
      interrupts: what holds interrupts back meanwhile.
      token: stands for the program where nothing shall keep it alive.
    """

    def __init__(
        self,
        lift: Lift,
        spec: Spec,
        rest: Any,
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
        self._rest = rest
        self.outcomes: list[Outcome] = []
        self.spec = Spec(spec.record, layout, spec.spots, spec.entries)
        self.has_effects = False
        self.interrupts = HeldInterrupts()
        self.token = object()
        self._lift = lift
        self._on_trace = on_trace
        self.handover: Handover | None = None
        this = weakref.ref(self)  # no cycle: a program goes when its function goes

        def change(donated: list[Any], kept: list[Any], /, *rest: Any, **named: Any) -> Any:
            return this()._run(donated, kept, (rest, named))  # type: ignore[union-attr]

        def write(donated: list[Any], /, *rest: Any, **named: Any) -> Any:
            return this()._run(donated, [], (rest, named))  # type: ignore[union-attr]

        def read(kept: list[Any], /, *rest: Any, **named: Any) -> Any:
            return this()._run([], kept, (rest, named))  # type: ignore[union-attr]

        # An empty list costs JAX as much as some arrays.
        self.is_reading = KEPT in layout
        function = (change if self.is_reading else write) if donated else read
        function.__name__ = function.__qualname__ = lift.name.rpartition(".")[2]
        self.jitted = jax.jit(function, donate_argnums=0 if donated else (), **options)
        self._has_options = bool(options)

    def _run(self, donated: list[Any], kept: list[Any], rest: Any) -> Any:
        if donated and _config.jax_disable_jit:
            raise NotCompiledError
        arrays, found = jtu.tree_flatten(rest)
        if found != self._rest:
            raise FormError
        groups = (donated, kept, arrays)
        handover = self.handover
        if handover is not None and handover.thread == threading.get_ident():
            self.handover = None
            inputs = [iter(group) for group in groups]
            flat = self._in_order(inputs, self.spec)
            if [jax.typeof(x) for x in flat] == handover.avals:
                self.interrupts.hold()
                return self._replay(handover, flat)
        self._on_trace(self.spec, jax.tree.map(jax.typeof, groups))
        inside = self._lift.rebuild(self.spec, groups)
        try:
            out = self._lift.run(inside)
        except StopIteration as error:
            if not donated:
                raise
            # The program is called by an iterator, which this would end.
            raise RuntimeError(f"{self._lift.name!r} raised StopIteration") from error
        (others,), exit = self._lift.collect(self.spec, inside, out)
        result = self._part(inside, donated, others, exit, out)
        if donated:
            self.interrupts.hold()
        return result

    def _in_order(self, inputs: list[Any], spec: Spec) -> list[Any]:
        """Returns kept arrays and arguments in the order that a program without donation has."""
        kept: list[Any] = []
        for number, group in zip(entry_sizes(spec.record), spec.layout, strict=True):
            if group != ARRAYS:
                kept.extend(next(inputs[group]) for _ in range(number))
        return kept + list(inputs[ARRAYS])

    def _call_traced(self, jaxpr: Any, flat: list[Any]) -> list[Any]:
        """Does inside another trace what was traced before."""
        if self._has_options:  # some are refused inside of a trace
            from jax.extend.core import jaxpr_as_fun  # takes long to import

            return jaxpr_as_fun(jaxpr)(*flat)
        number = len(flat) - self._rest.num_leaves
        rest, named = jtu.tree_unflatten(self._rest, flat[number:])
        # JAX finds the trace in its cache. Its outcome is not whole, as Variables are written.
        return self.jitted(flat[:number], *rest, **named)[1]

    def _replay(self, handover: Handover, flat: list[Any]) -> Any:
        values = handover.call(flat)
        chosen = frozenset(handover.donated)
        others = [value for i, value in enumerate(values) if i not in chosen]
        return self._output([values[i] for i in handover.donated], others, handover.outcome)

    def _part(
        self, inside: Inside, donated: list[Any], others: list[Any], exit: Exit, out: Any
    ) -> Any:
        """Parts what comes out of a trace, and remembers what it is.

        A donated Variable that was not written comes out as it is.
        """
        variables = [inside.leaves[i] for i in self.donated]
        new = [variable._raw for variable in variables]
        wrong = [not _same_aval(*pair) for pair in zip(donated, new, strict=True)]
        if any(wrong):
            pairs = zip(self.donated, wrong, strict=True)
            raise UndonatableError(frozenset(entry for entry, is_wrong in pairs if is_wrong))
        addresses = {id(variable) for variable in variables}
        written: list[Written] = []
        remaining: list[Any] = []
        rest = iter(others)
        for w in exit.written:
            leaves = [next(rest) for _ in range(_size_of(w))]
            if id(inside.objects[w.index]) not in addresses:
                written.append(w)
                remaining.extend(leaves)
            elif w.metadata is not None:  # its metadata comes out, with the value once more
                written.append(w)
                remaining.extend(leaves)
        remaining.extend(rest)
        layout = exit.layout[len(exit.written) - len(written) :]
        exit = Exit(tuple(written), exit.changed, exit.out, layout)
        treedef = jtu.tree_structure(out) if _only_arrays(exit.out) else None
        return self._output(new, remaining, Outcome(exit, treedef, bool(_config.jax_disable_jit)))

    def _output(self, new: list[Any], others: list[Any], outcome: Outcome) -> Any:
        """Returns what comes out, in the form that an outcome has."""
        if outcome.is_whole:
            out = jtu.tree_unflatten(outcome.treedef, others)
            return out if outcome.exit.out == ARRAY and not self.donated else (new, out)
        if outcome not in self.outcomes:
            self.outcomes.append(outcome)
        return new, others, [None] * self.outcomes.index(outcome)

    def donate_written(
        self,
        kept: list[Any],
        rest: tuple[tuple[Any, ...], dict[str, Any]],
        values: list[Any],
        make: Callable[[tuple[int, ...]], Program],
    ) -> Program:
        """Traces a structure, and makes the program that donates the Variables it writes.

        Donated are Variables whose single array keeps its shape and dtype.

        Args:
          kept: what this program, which itself donates nothing, is given of the objects.
          rest: the other arguments.
          values: what is at each entry: Variables and others.
          make: makes a program from the positions of the entries to donate.

        Returns:
          A program that has the jaxpr of the trace, for the call that follows.
        """
        traced = self.jitted.trace(kept, *rest[0], **rest[1])
        found = traced.out_info
        if type(found) is not tuple or len(found) == 2:  # whole: nothing is written
            return make(())
        outcome = self.outcomes[len(found[2])]
        indices = _entries_by_index(self.spec)
        chosen: dict[int, int] = {}  # where the new value is among the outputs, by entry
        others: list[Written] = []
        position = 0
        for w in outcome.exit.written:
            entry = indices[w.index]
            variable = values[entry]
            is_single = w.treedef is None and w.metadata is None and isinstance(variable, Variable)
            if is_single and _same_aval(variable._slot, found[1][position]):
                chosen[entry] = position
            else:
                others.append(w)
            position += _size_of(w)
        program = make(tuple(sorted(chosen)))
        if chosen:
            exit = outcome.exit
            exit = Exit(tuple(others), exit.changed, exit.out, exit.layout[len(chosen) :])
            program.handover = Handover(
                avals=list(traced.jaxpr.in_avals),
                call=functools.partial(self._call_traced, traced.jaxpr),
                donated=tuple(chosen[entry] for entry in program.donated),
                outcome=Outcome(exit, outcome.treedef, False),
                thread=threading.get_ident(),
            )
            program.has_effects = bool(traced.jaxpr.effects)
        return program


def entry_sizes(record: Record) -> list[int]:
    """Returns how many arrays each leaf of a record has."""
    return [
        1 if isinstance(r, ArrayDef) or r.treedef is None else r.treedef.num_leaves
        for _, r in iter_records(record)
        if isinstance(r, (ArrayDef, VariableDef))
    ]


def _size_of(written: Written) -> int:
    return 1 if written.treedef is None else written.treedef.num_leaves


def _only_arrays(record: Record) -> bool:
    if isinstance(record, ValueDef):
        return all(map(_only_arrays, record.children))
    return isinstance(record, ArrayDef) or (isinstance(record, Static) and record.value is None)


def _entries_by_index(spec: Spec) -> dict[int, int]:
    leaves = [r for _, r in iter_records(spec.record) if isinstance(r, (ArrayDef, VariableDef))]
    return {r.index: i for i, r in enumerate(leaves) if isinstance(r, VariableDef)}


def _same_aval(array: Any, new: Any) -> bool:
    """Returns whether an array may take the place of another one in memory."""
    if not isinstance(array, (jax.Array, np.ndarray)):
        return False
    aval = jax.typeof(array)
    found = getattr(new, "shape", None), getattr(new, "dtype", None)
    return found == (aval.shape, aval.dtype)
