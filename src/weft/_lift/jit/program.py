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
import dataclasses
import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu
import numpy as np

from weft._core.arguments import argument_paths
from weft._core.path import Path
from weft._core.static import Static
from weft._graph.records import ARRAY, ArrayDef, Record, ValueDef, VariableDef, iter_records
from weft._graph.snapshot import Snapshot, snapshot_of
from weft._lift.jit.callbacks import has_callbacks
from weft._lift.jit.interrupts import HeldInterrupts
from weft._lift.jit.pattern import Pattern
from weft._lift.jit.spec import Exit, Groups, Spec
from weft._lift.lift import Lift
from weft._lift.naming import names_in, shown_as
from weft._variable.keeper import is_part
from weft._variable.variable import Variable

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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What comes out of a program besides donated Variables.

    Attributes:
      exit: the exit; its `written` lacks the donated Variables.
      treedef: of what the function returns, if these are arrays only.
      is_eager: whether nothing was compiled, so that arrays may come out that went in.
      may_be_whole: whether JAX may put together what the function returns.
      snapshot: of the static values that come out, None if none of them can change in place.
      is_plain: whether nothing but single arrays in Variables is written back.
      is_whole: whether nothing but what the function returns comes out of a compiled program.
    """

    exit: Exit
    treedef: Any
    is_eager: bool
    may_be_whole: bool
    snapshot: Snapshot | None = dataclasses.field(init=False, compare=False)
    is_plain: bool = dataclasses.field(init=False)
    is_whole: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        exit = self.exit
        object.__setattr__(self, "snapshot", snapshot_of(exit.watched))
        singles = all(w.treedef is None and w.metadata is None for w in exit.written)
        is_plain = self.treedef is not None and not exit.changed and singles
        object.__setattr__(self, "is_plain", is_plain)
        is_whole = is_plain and not exit.written and not self.is_eager and self.may_be_whole
        object.__setattr__(self, "is_whole", is_whole)


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


class UntracedError(Exception):
    """Ends a call that JAX would have to trace, or whose arguments have another form."""


class Program:
    """A function compiled for one structure, with some Variables donated.

    Args:
      lift: the function.
      spec: the structure; its layout is made anew here.
      pattern: the form of the arguments.
      donated: the entries whose arrays are donated, by position.
      options: what the user wants.
      on_trace: called with the avals of each trace of the user's function, before it runs.

    Attributes:
      jitted: the compiled function.
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
        layout = tuple(
            DONATED if i in chosen else ARRAYS if group == ARRAYS else KEPT
            for i, group in enumerate(spec.layout)
        )
        self.donated = donated
        self.options = options
        self.outcomes: list[Outcome] = []
        self.traces = 0
        self.spec = Spec(spec.record, layout, spec.spots, spec.entries)
        self.has_effects = False
        self.interrupts = HeldInterrupts()
        self.token = object()
        self.handovers: dict[int, Handover] = {}
        self.rest = pattern.rest
        self.is_nestable = not (any(options.jit.values()) or options.given or options.is_sharded)
        self._pattern = pattern
        self._lift = lift
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
        self.is_reading = KEPT in layout
        function: Any = (change if self.is_reading else write) if donated else read
        spec = self.spec
        shown = shown_as(lift.f, function, lambda _: names_in(spec))
        self.jitted: Any = jax.jit(shown, **self._jit_options())

    @property
    def rest_paths(self) -> list[Path]:
        """Where the positional arguments that are no roots are."""
        pattern = self._pattern
        paths = self.spec.record.keys
        if pattern.is_flat:
            paths = argument_paths(self._lift.f, pattern.arity)
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
            entries = zip(self.spec.entries, sizes, self.spec.layout, strict=True)
            for entry, size, group in entries:
                groups[group] += [entry.prefix] * size
            found["in_shardings"] = (*(groups[i] for i in lists), *groups[ARRAYS])
            found["out_shardings"] = (groups[DONATED], self._lift.out_keys, None)
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
        inside = self._lift.rebuild(spec, groups)
        out = self._lift.run(inside)
        others, exit = self._lift.collect(spec, inside, out)
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
        for number, group in zip(entry_sizes(self.spec.record), self.spec.layout, strict=True):
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

    def with_compiled(self, compiled: Callable[..., Any]) -> Program:
        """Returns this program with its function compiled ahead of time."""
        program = copy.copy(self)
        program.jitted = functools.partial(compiled)  # may be referred to weakly, unlike JAX's
        program.token = object()
        return program

    def holds(self) -> bool:
        """Returns whether the static values that came out of its traces are as they were."""
        return all(o.snapshot is None or o.snapshot.holds() for o in self.outcomes)

    def trace(
        self, spec: Spec, kept: list[Any], rest: tuple[Any, ...], named: dict[str, Any]
    ) -> Trace:
        """Traces the user's function for a call's arrays, concrete or abstract; runs nothing."""
        with self.tracing(spec):
            traced = self.jitted.trace(kept, *rest, **named)
        return Trace(self, spec, traced)


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
        for w, group in zip(exit.written, exit.layout, strict=False):
            entry, position = indices[w.index], positions[group]
            variable = values[entry]
            is_single = w.treedef is None and w.metadata is None and isinstance(variable, Variable)
            may_take = is_single and not is_part(variable)
            same = may_take and _same_aval(variable._slot, groups[group][position])
            found[entry] = (group, position) if same else None
            positions[group] += 1 if w.treedef is None else w.treedef.num_leaves
        return found

    def prepare(
        self, donating: Program | None, values: Sequence[Any], make: Callable[..., Program]
    ) -> Program:
        """Returns the program that donates what is written, with this trace for its next call.

        Donated are Variables whose single array keeps its shape and dtype; of the program that
        there is already, no other ones.

        Args:
          donating: that of earlier traces, if any.
          values: what is at each entry: Variables and others.
          make: makes a program from the positions of the entries to donate.
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
            donating = make(tuple(donated))
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
        rest = exit.layout[len(exit.written) :]
        exit = Exit(written, exit.changed, exit.out, (*(exit.layout[i] for i in kept), *rest))
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
            from jax.extend.core import jaxpr_as_fun  # takes long to import

            leaves = jaxpr_as_fun(self.traced.jaxpr)(*flat)
            out = jtu.tree_unflatten(jtu.tree_structure(self.traced.out_info), leaves)
        return [leaves] if self.outcome is None else program.options.groups_of(out[1])


def find_outcome(outcomes: list[Outcome], out: Any) -> Outcome | None:
    """Returns which of a program's outcomes came out, None if it is whole."""
    is_whole = not isinstance(out, tuple) or len(out) == 2
    return None if is_whole else outcomes[len(out[-1])]


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
