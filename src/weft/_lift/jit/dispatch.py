"""Calls of a compiled function by plans: the hot path of `nnx.jit`.

A call looks for a plan of its form, gathers the arrays of its Variables, runs the program and
stores what comes out. No Python code runs per Variable but one read and, if it was written, one
store; where the same function is called again and nothing else happened, not even these.

All calls go this way: with shardings, with arguments to be donated, compiled ahead of time. What
JAX would have to trace is traced apart, and the call is made again.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable
from itertools import starmap
from threading import get_ident
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu

from weft._core.caches import forgets
from weft._core.config import set_auto_donation
from weft._core.trace import OUTERMOST, find_top_trace, is_outermost
from weft._core.tracebacks import trim_call
from weft._core.types import exhaust
from weft._graph import prefix as prefixes
from weft._lift.jit.lease import NOTHING, copy_array, settle
from weft._lift.jit.pattern import Pattern, is_root, pattern_of
from weft._lift.jit.plan import (
    Operands,
    Plan,
    Plans,
    drop,
    find_plan,
    gather,
    make_plan,
    remember,
    store_others,
)
from weft._lift.jit.program import (
    Options,
    Program,
    Trace,
    UntracedError,
    find_outcome,
)
from weft._lift.jit.spec import Spec
from weft._lift.lift import Lift
from weft._variable.keeper import is_part, set_raw
from weft._variable.reads import forget
from weft._variable.storage import get_slot
from weft._variable.variable import Variable

_config: Any = jax.config
_debug_nans: Any = jax.debug_nans  # its value is read in C, that of an attribute of config is not
_debug_infs: Any = jax.debug_infs

_dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


@forgets
def clear() -> None:
    """Forgets what is compiled, of all functions."""
    for dispatcher in list(_dispatchers):
        dispatcher.clear()


class Structure:
    """What is compiled for one structure of arguments: with and without donation.

    Attributes:
      plain: the program that donates nothing; None where only the other one was compiled, ahead of
        time.
      donating: the program that donates what the function writes, if it was traced.
      has_callbacks: whether the function calls back to the host: then nothing is donated.
    """

    __slots__ = ("__weakref__", "donating", "has_callbacks", "plain")

    def __init__(self, plain: Program | None, donating: Program | None = None):
        self.plain = plain
        self.donating = donating
        self.has_callbacks = False

    def holds(self) -> bool:
        """Returns whether the static values that calls brought out are as they were.

        Objects have them now, where they may be changed in place: another call has to make them
        anew.
        """
        return all(p is None or p.holds() for p in (self.plain, self.donating))


class Staged(NamedTuple):
    """A call that was traced ahead of time: JAX's stage, its program, and the call's spec."""

    traced: Any
    program: Program
    spec: Spec
    has_callbacks: bool


class Dispatcher:
    """Runs the calls of one function.

    Args:
      lift: the function.
      options: what the user wants of its programs.
      on_trace: called with spec and avals of each trace, before the user's function runs.
      structures: what is compiled already, ahead of time; then nothing else is.
      on_new: called with the spec of a call for which nothing is compiled then; raises.

    Attributes:
      token: what objects know the function by, without keeping it alive.
      rootless: the plans of calls without objects.
      calls: how many there were.
    """

    def __init__(
        self,
        lift: Lift,
        options: Options,
        on_trace: Callable[[Spec, Any], None],
        structures: dict[Any, Structure] | None = None,
        on_new: Callable[[Spec], None] | None = None,
    ):
        self._lift = lift
        self._options = options
        self._on_trace = on_trace
        self._donates = options.donates or bool(options.given)
        self._structures: dict[Any, Structure] = {} if structures is None else structures
        self._on_new = on_new
        self._patterns: dict[tuple[Any, ...], Pattern] = {}
        self.token = object()
        self.rootless: Plans = {}
        self.calls = 0
        _dispatchers.add(self)

    def __reduce__(self) -> Any:  # what is compiled stays in this process
        return (Dispatcher, (self._lift, self._options, self._on_trace))

    def clear(self) -> None:
        """Forgets what is compiled."""
        if self._on_new is None:
            self._structures.clear()
            self._patterns.clear()
            self.rootless.clear()

    def make_function(self) -> Callable[..., Any]:
        """Returns what is called instead of the function.

        It is a function itself, as calling an object costs more than all that is done here.
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            by_thread = (args[0]._root_plans if args and is_root(args[0]) else self.rootless).get(
                self.token
            )
            found = by_thread.get(get_ident(), ()) if by_thread else ()
            for plan in found:
                if not (plan.arity == len(args) and (plan.is_simple or plan.fits(args))):
                    continue
                rest = plan.others_of(args)
                # Where only one form is known, JAX itself sees that a call has another, as that is
                # still to be traced. Comparing them costs 0.1 µs, and 1 µs for a dict of 20.
                if len(found) > 1 and ((*map(type, rest),) != plan.types or kwargs):
                    if not plan.accepts(rest, kwargs):
                        continue
                if not plan.watch.valid:
                    continue
                reading = plan.reading
                try:
                    if reading is None:
                        return self._run(plan, rest, kwargs)
                    arrays, jitted = reading.arrays, reading.jitted()
                    if jitted is None:
                        break
                    if arrays is None:
                        arrays = reading.read()
                    if kwargs:
                        jitted = functools.partial(jitted, **kwargs)
                    out = jitted(arrays, *rest)
                    if type(out) is reading.array_type:
                        return out
                    return self._finish_reading(plan, reading, out, rest, kwargs)
                except UntracedError:
                    break
                except Exception as error:
                    trim_call(error, self._lift.f, args, kwargs)
                    raise
            try:
                return self._call(args, kwargs)
            except Exception as error:
                trim_call(error, self._lift.f, args, kwargs)
                raise

        return call

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a call of whatever form."""
        plan, rest, named = self._plan_of(args, kwargs)
        structure = plan.structure()  # stays alive, also if another thread makes a newer one
        if structure is None:
            return self._call(args, kwargs)
        for run in (self._run, self._run_traced):
            with contextlib.suppress(UntracedError):
                return run(plan, rest, named)
        return self._run_plain(plan, rest, named, may_trace=True)

    def _run_traced(self, plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs a call after tracing the function for it.

        Raises:
          UntracedError: if JAX sees other types in the call than in the trace.
        """
        if _config.jax_disable_jit:  # then there is nothing to trace
            return self._run_plain(plan, rest, named, may_trace=True)
        settle()
        structure: Structure = plan.structure()
        plain = structure.plain
        if plain is None:  # compiled ahead of time
            return self._run(plan, rest, named)
        trace = plain.trace(plan.spec, gather(plan.operands(plain)), rest, named)
        if trace.has_callbacks and not structure.has_callbacks:
            structure.has_callbacks, structure.donating = True, None
            plan.donating = plan.reading = None
            if plain.traces > 1:  # so that no plan goes on reading without asking
                structure.plain = self._make_program(plan, ())
        if not self._may_donate() or structure.has_callbacks:
            return self._run_plain(plan, rest, named, may_trace=True)
        donating = self._prepare(plan, trace, structure.donating)
        structure.donating, plan.donating, plan.reading = donating, None, None
        try:
            return self._run(plan, rest, named)
        finally:
            donating.handovers.pop(get_ident(), None)

    def _may_donate(self) -> bool:
        """Returns whether arrays may be overwritten: not where JAX may want to read them again."""
        return (
            self._donates
            and find_top_trace(()) is OUTERMOST
            and not (_debug_nans.value or _debug_infs.value)
            and set_auto_donation.get()
        )

    def _run(self, plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs a call that a plan fits.

        What comes out of a program that donates is stored without a gap for a signal. Python
        handles signals when a call returns and between the rounds of a loop. Here the program is
        called by the unpacking of an iterator, which is neither, and one call from C stores all.

        Args:
          plan: the plan.
          rest: what is given to JAX besides the arrays of the plan's objects.
          named: likewise, by name.

        Raises:
          UntracedError: if the function has to be traced for this call.
        """
        # As `_may_donate`. What is asked here costs more than it seems, on each call: in a loop,
        # the caches are full of what the program does.
        if not (
            self._donates
            and find_top_trace(()) is OUTERMOST
            and not (_debug_nans.value or _debug_infs.value)
            and set_auto_donation.get()
        ):
            return self._run_plain(plan, rest, named)
        operands = plan.donating
        if operands is None or (jitted := operands.jitted()) is None:
            return self._run_prepared(plan, rest, named)
        if named:
            jitted = functools.partial(jitted, **named)
        lease, interrupts = operands.lease, operands.interrupts
        holds = operands.has_effects
        if lease.shared or lease.exposed:
            if lease.shared or not lease.reclaim(operands.donated):
                return self._run_plain(plan, rest, named)
            holds = True  # other arrays than before: JAX may not have seen their like
        arrays = out = None
        lease.busy = True
        try:
            arrays = lease.arrays if lease.is_holding else lease.take(operands.donated)
            if not (lease.shared or lease.exposed):  # by another thread or a finalizer meanwhile
                lists = (arrays, gather(operands)) if operands.is_reading else (arrays,)
                if holds:
                    interrupts.hold()
                (out,) = starmap(jitted, (lists + rest,))
                lease.arrays = out[0]
                if not lease.is_holding:
                    exhaust(lease.store)
                    forget()
        except BaseException as error:
            if out is None and any(array.is_deleted() for array in arrays or ()):
                error.add_note(
                    f"nnx.jit of {self._lift.name!r} failed after the arrays of the Variables it "
                    "writes were donated to it: they are gone. Restore the objects from a "
                    "checkpoint, or keep the arrays during calls: `nnx.jit(f, donate=None)`"
                )
            raise
        finally:
            lease.busy, lease.store = False, NOTHING
            if interrupts.held:
                interrupts.release()
        if out is None:
            return self._run_plain(plan, rest, named)
        return out[1] if len(out) == 2 else self._finish(plan, operands, out, (rest, named))

    def _run_prepared(self, plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs a call of a plan that does not know yet whether it donates."""
        structure: Structure | None = plan.structure()
        if structure is None or (structure.donating is None and not structure.has_callbacks):
            raise UntracedError
        program = structure.donating
        if program is None or not program.donated:
            return self._run_plain(plan, rest, named)
        plan.donating = plan.operands(program)
        return self._run(plan, rest, named)

    def _run_plain(
        self,
        plan: Plan,
        rest: tuple[Any, ...],
        named: dict[str, Any],
        may_trace: bool = False,
    ) -> Any:
        """Runs a call by the program that donates nothing.

        Args:
          plan: the plan.
          rest: what JAX is given besides the arrays of the plan's objects.
          named: likewise, by name.
          may_trace: whether the function may be traced in passing, as inside of another trace.
        """
        settle()
        structure: Structure | None = plan.structure()
        if structure is None:
            raise UntracedError
        program = structure.plain
        if program is None:
            return self._run_copied(plan, rest, named)
        operands = plan.operands(program)
        is_outer = is_outermost()
        if structure.has_callbacks or not is_outer:
            plan.expose()  # a callback may use the objects while the program has their arrays
        if structure.has_callbacks and is_outer:
            out = self._run_calling_back(program, plan.spec, gather(operands), rest, named)
        elif is_outer and not may_trace:
            out = program.jitted(gather(operands), *rest, **named)
        else:
            with program.tracing(plan.spec):
                out = program.jitted(gather(operands), *rest, **named)
        if structure.has_callbacks:
            plan.reading = None
        else:
            donating = structure.donating
            donates = self._donates if donating is None else bool(donating.donated)
            if not donates and not operands.others:
                plan.reading = operands
        return self._finish_reading(plan, operands, out, rest, named)

    def _run_calling_back(
        self,
        program: Program,
        spec: Spec,
        kept: list[Any],
        rest: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Any:
        """Runs a program that calls back to the host.

        It ends before anything is written: a callback sees the objects as they were, and one that
        fails leaves them so. Inside of a callback, JAX would make another error of Ctrl-C.
        """
        try:
            program.interrupts.hold()
            with program.tracing(spec):
                out = program.jitted(kept, *rest, **named)
            is_whole = find_outcome(program.outcomes, out) is None
            return out if is_whole else jax.block_until_ready(out)
        finally:
            if program.interrupts.held:
                program.interrupts.release()

    def _run_copied(self, plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs a program that donates where the Variables' own arrays may not be overwritten."""
        program: Program = plan.structure().donating
        operands = plan.operands(program)
        arrays = [_copied(variable._raw) for variable in operands.donated]
        lists = (arrays, gather(operands)) if operands.is_reading else (arrays,)
        out = program.jitted(*lists, *rest, **named)
        for variable, new in zip(operands.donated, out[0], strict=True):
            set_raw(variable, new)
        return out[1] if len(out) == 2 else self._finish(plan, operands, out, (rest, named))

    def _finish_reading(
        self,
        plan: Plan,
        operands: Operands,
        out: Any,
        rest: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Any:
        """Ends a call of a program that donates nothing.

        Args:
          plan: of the call.
          operands: the plan's for the program.
          out: what came out of it.
          rest: what JAX was given besides the arrays of the plan's objects.
          named: likewise, by name.
        """
        is_outer = is_outermost()
        outcome = find_outcome(operands.outcomes, out)
        if not is_outer or (outcome is not None and outcome.is_eager):
            plan.expose()  # JAX may keep the very arrays that went in, or return them
        if outcome is not None:
            return self._finish(plan, operands, out, (rest, named))
        if type(out) is tuple:
            return out[1]
        if is_outer:
            operands.array_type = type(out)
        return out

    def _finish(self, plan: Plan, operands: Operands, out: Any, rest: Any) -> Any:
        """Writes back what comes out besides donated Variables; returns what the function does."""
        _, others, marks = out
        outcome = operands.outcomes[len(marks)]
        written = outcome.exit.written
        is_simple = outcome.is_plain and not self._options.is_sharded
        if is_simple and not (written and not is_outermost()):
            # Made first: a pytree of the user's may refuse to be put together.
            made = jtu.tree_unflatten(outcome.treedef, others[len(written) :])
            if not written or store_others(plan, operands, len(marks), rest, others):
                return made
        plan.depend_on(outcome.snapshot)
        return self._lift.leave(plan.call(rest), self._options.groups_of(others), outcome.exit)

    # -- ahead of time
    def stage(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Staged:
        """Traces the function for arguments, concrete or abstract, without running it."""
        plan, rest, named = self._plan_of(args, kwargs)
        plain = plan.structure().plain
        settle()
        trace = plain.trace(plan.spec, gather(plan.operands(plain)), rest, named)
        staged = Staged(trace.traced, plain, plan.spec, trace.has_callbacks)
        if not self._may_donate() or trace.has_callbacks:
            return staged
        program = self._prepare(plan, trace, None)
        if not program.donated:
            return staged
        operands = plan.operands(program)
        lists = (list(map(get_slot, operands.donated)), gather(operands))
        try:
            traced = program.jitted.trace(*lists[: 1 + operands.is_reading], *rest, **named)
        finally:
            program.handovers.pop(get_ident(), None)
        return Staged(traced, program, plan.spec, False)

    def ahead(
        self, staged: Staged, compiled: Callable[..., Any], on_new: Callable[[Spec], None]
    ) -> Dispatcher:
        """Returns what runs the calls of a function that was compiled ahead of time.

        Args:
          staged: the call it was compiled for.
          compiled: what JAX compiled.
          on_new: called with the spec of a call of another structure; raises.
        """
        program = staged.program.with_compiled(compiled)
        pair = (None, program) if program.donated else (program, None)
        structure = Structure(*pair)
        structure.has_callbacks = staged.has_callbacks
        options = self._options._replace(donates=bool(program.donated), given=frozenset())
        structures = {self._key_of(staged.spec): structure}
        return Dispatcher(self._lift, options, self._on_trace, structures, on_new)

    # -- making plans and programs
    def _plan_of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Plan, tuple[Any, ...], dict[str, Any]]:
        """Returns the plan of a call, made if need be, and what JAX is given besides."""
        leaves, treedef = jtu.tree_flatten((args, kwargs), is_root)
        form = (treedef, *map(is_root, leaves))
        pattern = self._patterns.get(form)
        if pattern is None:
            needs_leaves = self._options.is_sharded
            pattern = pattern_of(args, kwargs, leaves, treedef, needs_leaves)
            self._patterns[form] = pattern
        given = args if pattern.is_flat else leaves
        root = given[pattern.roots[0]] if pattern.roots else None
        plans = self.rootless if root is None else root._root_plans
        plan = find_plan(plans, self.token, given, pattern)
        if plan is None:
            holder, name = (self, "rootless") if root is None else (root, "_root_plans")
            on_void = functools.partial(_drop, weakref.ref(holder), name, self.token)
            plan = make_plan(self._lift, leaves, given, pattern, on_void)
            plan.structure = weakref.ref(self._structure_of(plan))
            if self._options.is_sharded:
                _place(plan)
            remember(root, plans, self.token, plan)
        return plan, *pattern.rest_of(args, kwargs, leaves)

    def _key_of(self, spec: Spec) -> Any:
        if not self._options.is_sharded:
            return spec
        keys = self._lift.in_keys
        return spec, tuple(prefixes.position(entry.prefix, keys) for entry in spec.entries)

    def _structure_of(self, plan: Plan) -> Structure:
        key = self._key_of(plan.spec)
        structure = self._structures.get(key)
        if structure is not None and not structure.holds():
            structure = None
            if self._on_new is None:
                self._structures.pop(key, None)
        if structure is None:
            if self._on_new is not None:
                self._on_new(plan.spec)
            # Another thread may have made one meanwhile: there is one for all.
            structure = self._structures.setdefault(key, Structure(self._make_program(plan, ())))
        return structure

    def _make_program(self, plan: Plan, donated: tuple[int, ...]) -> Program:
        return Program(self._lift, plan.spec, plan.pattern, donated, self._options, self._on_trace)

    def _prepare(self, plan: Plan, trace: Trace, donating: Program | None) -> Program:
        """Returns the program that donates what a trace writes."""
        make = functools.partial(self._make_program, plan)
        return trace.prepare(donating, plan.values, make)


def _drop(holder: weakref.ref[Any], name: str, token: object, plan: Plan) -> None:
    """Makes whoever keeps a void plan forget it."""
    found = holder()
    if found is not None:
        drop(getattr(found, name), token, plan)


def _copied(array: Any) -> Any:
    return copy_array(array) if isinstance(array, jax.Array) and is_outermost() else array


def _place(plan: Plan) -> None:
    """Puts Variables where their shardings say, so that no call has to move them."""
    if not is_outermost():
        return
    for value, entry in zip(plan.values, plan.spec.entries, strict=True):
        sharding = entry.prefix
        if isinstance(value, Variable) and isinstance(sharding, jax.sharding.Sharding):
            raw = value._raw
            if not isinstance(raw, jax.Array) or is_part(value):
                continue
            if not (raw.committed and raw.sharding.is_equivalent_to(sharding, raw.ndim)):
                set_raw(value, jax.device_put(raw, sharding))
