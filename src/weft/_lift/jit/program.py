"""Programs: what `jax.jit` compiles for one structure of arguments.

A program's inputs are the arrays that objects hold, in two lists, those *donated*, if there are
any, and the others (*kept*), and the other arguments as they are. Its outputs are the new values of
the donated Variables, the other arrays that come out, and a list of Nones whose length says which
*outcome* (of possibly several traces) this is: so that nothing of the output is made by Python
code, which an interrupt could stop half-way. Where no more comes out than what the function
returns, and that is arrays, the outcome is *whole*: then this itself is all that follows the
donated Variables, and a single array of a program without donation comes alone. Where the user
gives shardings, the other arrays come out in *groups*, one list per sharding.

The function is traced by the *plain* program, which donates nothing, and never in passing: a call
that JAX would have to trace ends with `UntracedError`, and is made again after the trace. So it is
known what the function writes and whether it calls back to the host before anything is given away,
and no code of the user's runs meanwhile. The jaxpr of such a trace is *handed over* to the program
that donates, once; every later trace that JAX asks for runs the user's function again, as the
context may be another.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu

from weft._core.arguments import argument_paths
from weft._core.path import Path
from weft._core.static import Static
from weft._graph.records import ARRAY, ArrayDef, Record, ValueDef, VariableDef, iter_records
from weft._lift.jit.handover import Handover, Trace
from weft._lift.jit.interrupts import HeldInterrupts
from weft._lift.jit.outcome import Outcome
from weft._lift.jit.pattern import Pattern
from weft._lift.jit.spec import Groups, Spec
from weft._lift.lift import Lift
from weft._lift.naming import names_in, shown_as

DONATED, KEPT, ARRAYS = range(3)
_config: Any = jax.config


class Options(NamedTuple):
    """What a user wants of the programs of a function.

    Attributes:
      jit: options of `jax.jit`, as they are.
      donates: whether arrays of Variables that are written may be overwritten.
      given: paths of arguments whose arrays may be overwritten even if others hold them.
      is_sharded: whether the prefixes of the lift are shardings.
    """

    jit: dict[str, Any]
    donates: bool
    given: frozenset[Path] = frozenset()
    is_sharded: bool = False

    def is_given(self, path: Path) -> bool:
        """Returns whether what is at a path may be overwritten even if others hold it."""
        return path[:1] in self.given or path[:2] in self.given

    def groups_of(self, others: Any) -> Groups:
        """Returns the groups of what comes out besides donated Variables."""
        return others if self.is_sharded else [others]


class UntracedError(Exception):
    """Ends a call that JAX would have to trace, or whose arguments have another form."""


class Program:
    """A function compiled for one structure, with some Variables donated.

    Args:
      lift: the function.
      spec: the structure; its grouping is made anew here.
      pattern: the form of the arguments.
      donated: the entries whose arrays are donated, by position.
      options: what the user wants.
      on_trace: called with the avals of each trace of the user's function, before it runs.

    Attributes:
      lift: the function.
      jitted: the compiled function.
      unasked: the same for plans that look at nothing else; None where the function calls back to
        the host, which asks for more.
      donating: the program that donates what this one writes, if it was traced.
      donates: whether there may be such a program.
      has_callbacks: whether the function calls back to the host: then nothing is donated.
      outcomes: what came out of the traces, save what is whole.
      traces: how many there were.
      handovers: traces to be used by a thread's running call.
      rest: the structure of the arguments that are no objects.
      is_nestable: whether it may be called inside of a trace of another program.
      is_reading: whether there are arrays of objects besides the donated ones.
      has_effects: whether each call goes through Python code of JAX.
      interrupts: what holds signals back meanwhile.
      token: stands for the program where nothing shall keep it alive.
    """

    def __init__(
        self,
        lift: Lift,
        spec: Spec,
        pattern: Pattern,
        donated: tuple[int, ...],
        options: Options,
        on_trace: Callable[[Spec, Any], None],
    ):
        chosen = frozenset(donated)
        grouping = tuple(
            DONATED if i in chosen else ARRAYS if group == ARRAYS else KEPT
            for i, group in enumerate(spec.grouping)
        )
        self.donated = donated
        self.options = options
        self.outcomes: list[Outcome] = []
        self.traces = 0
        self.spec = Spec(spec.record, grouping, spec.spots, spec.entries)
        self.has_effects = False
        self.interrupts = HeldInterrupts()
        self.token = object()
        self.handovers: dict[int, Handover] = {}
        self.rest = pattern.rest
        self.is_nestable = not (any(options.jit.values()) or options.given or options.is_sharded)
        self._pattern = pattern
        self.lift = lift
        self.donates = options.donates or bool(options.given)
        self.donating: Program | None = None
        self.has_callbacks = False
        self._on_trace = on_trace
        self._tracing: dict[int, Spec] = {}  # of calls that may be traced now, by thread
        this = weakref.ref(self)  # no cycle: a program goes when its function goes

        def change(donated: list[Any], kept: list[Any], /, *rest: Any, **named: Any) -> Any:
            return this()._run(donated, kept, (rest, named))  # type: ignore[union-attr]

        def write(donated: list[Any], /, *rest: Any, **named: Any) -> Any:
            return this()._run(donated, [], (rest, named))  # type: ignore[union-attr]

        def read(kept: list[Any], /, *rest: Any, **named: Any) -> Any:
            return this()._run([], kept, (rest, named))  # type: ignore[union-attr]

        # An empty list costs JAX as much as some arrays.
        self.is_reading = KEPT in grouping
        function: Any = (change if self.is_reading else write) if donated else read
        spec = self.spec
        shown = shown_as(lift.f, function, lambda _: names_in(spec))
        self.jitted: Any = jax.jit(shown, **self._jit_options())
        self.unasked: Any = self.jitted

    @property
    def rest_paths(self) -> list[Path]:
        """Where the positional arguments that are no roots are."""
        pattern = self._pattern
        paths = self.spec.record.keys
        if pattern.is_flat:
            paths = argument_paths(self.lift.f, pattern.arity)
        return [paths[i] for i in pattern.others]

    def _jit_options(self) -> dict[str, Any]:
        options = self.options
        found = dict(options.jit)
        lists = [DONATED] * bool(self.donated) + [KEPT] * (self.is_reading or not self.donated)
        given = [i for i, path in enumerate(self.rest_paths) if options.is_given(path)]
        found["donate_argnums"] = (*[0][: len(self.donated)], *(i + len(lists) for i in given))
        if options.given:
            found["donate_argnames"] = [path[0] for path in options.given if len(path) == 1]
        if options.is_sharded:
            groups: list[list[Any]] = [[], [], []]
            sizes = entry_sizes(self.spec.record)
            entries = zip(self.spec.entries, sizes, self.spec.grouping, strict=True)
            for entry, size, group in entries:
                groups[group] += [entry.prefix] * size
            found["in_shardings"] = (*(groups[i] for i in lists), *groups[ARRAYS])
            found["out_shardings"] = (groups[DONATED], self.lift.out_keys, None)
        return found

    @contextmanager
    def tracing(self, spec: Spec) -> Iterator[None]:
        """Lets the running thread trace the function for a call.

        Args:
          spec: the call's own. It equals the program's, but the static values in that may have
            changed since, in place.
        """
        thread = get_ident()
        around = self._tracing.get(thread)
        self._tracing[thread] = spec
        try:
            yield
        finally:
            self._tracing.pop(thread)
            if around is not None:
                self._tracing[thread] = around

    def _run(self, donated: list[Any], kept: list[Any], rest: Any) -> Any:
        arrays, form = jtu.tree_flatten(rest)
        groups = (donated, kept, arrays)
        if form != self.rest:
            raise UntracedError
        if donated:
            return self._replay(groups)
        spec = self._tracing.get(get_ident())
        if spec is None:
            raise UntracedError
        self.traces += 1
        self._on_trace(spec, jax.tree.map(jax.typeof, groups))
        inside = self.lift.rebuild(spec, groups)
        out = self.lift.run(inside)
        others, exit = self.lift.collect(spec, inside, out)
        treedef = jtu.tree_structure(out) if _only_arrays(exit.out) else None
        is_eager = bool(_config.jax_disable_jit)
        outcome = Outcome(exit, treedef, is_eager, not self.options.is_sharded)
        return self._output([], others, outcome)

    def _replay(self, groups: Sequence[list[Any]]) -> Any:
        """Does what was traced already, with donated arrays among its inputs."""
        handover = self.handovers.pop(get_ident(), None)
        if handover is None or _config.jax_disable_jit:
            raise UntracedError
        inputs = [iter(group) for group in groups]
        flat = self._in_order(inputs)
        if [jax.typeof(x) for x in flat] != handover.avals:
            raise UntracedError
        self.interrupts.hold()
        values = handover.call(flat)
        new = [
            old if place is None else values[place[0]][place[1]]
            for old, place in zip(groups[DONATED], handover.donated, strict=True)
        ]
        chosen = frozenset(handover.donated)
        others = [
            [value for i, value in enumerate(group) if (number, i) not in chosen]
            for number, group in enumerate(values)
        ]
        return self._output(new, others, handover.outcome)

    def _in_order(self, inputs: list[Iterator[Any]]) -> list[Any]:
        """Returns kept arrays and arguments in the order that a program without donation has."""
        kept: list[Any] = []
        for number, group in zip(entry_sizes(self.spec.record), self.spec.grouping, strict=True):
            if group != ARRAYS:
                kept.extend(itertools.islice(inputs[group], number))
        return kept + list(inputs[ARRAYS])

    def _output(self, new: list[Any], groups: Groups, outcome: Outcome) -> Any:
        """Returns what comes out, in the form that an outcome has."""
        if outcome.is_whole:
            out = jtu.tree_unflatten(outcome.treedef, groups[0])
            return out if outcome.exit.out == ARRAY and not self.donated else (new, out)
        if outcome not in self.outcomes:
            self.outcomes.append(outcome)
        others = groups if self.options.is_sharded else groups[0]
        return new, others, [None] * self.outcomes.index(outcome)

    def with_donated(self, donated: tuple[int, ...]) -> Program:
        """Returns a program of the same function that donates the arrays of some entries."""
        return Program(self.lift, self.spec, self._pattern, donated, self.options, self._on_trace)

    def with_compiled(self, compiled: Callable[..., Any], has_callbacks: bool) -> Program:
        """Returns this program with its function compiled ahead of time."""
        program = copy.copy(self)
        program.jitted = program.unasked = compiled
        program.donating, program.donates = None, bool(self.donated)
        program.token = object()
        if has_callbacks:
            program.note_callbacks()
        return program

    def note_callbacks(self) -> None:
        """Notes that the function calls back to the host: from now on every call is asked more."""
        self.has_callbacks, self.unasked, self.donating = True, None, None

    def holds(self) -> bool:
        """Returns whether the static values that came out of its traces are as they were.

        Objects have them now, where they may be changed in place: another call has to make them
        anew.
        """
        outcomes = [*self.outcomes, *(self.donating.outcomes if self.donating else ())]
        return all(o.snapshot is None or o.snapshot.holds() for o in outcomes)

    def trace(
        self, spec: Spec, kept: list[Any], rest: tuple[Any, ...], named: dict[str, Any]
    ) -> Trace:
        """Traces the user's function for a call's arrays, concrete or abstract; runs nothing."""
        with self.tracing(spec):
            traced = self.jitted.trace(kept, *rest, **named)
        return Trace(self, spec, traced)


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
