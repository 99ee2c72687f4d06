"""Calls of a compiled function by plans: the hot path of `nnx.jit`.

A call looks for a plan, gathers the arrays of its Variables, runs the program and stores what comes
out. No Python code runs per Variable but one read and, if it was written, one store; where the same
function is called again and nothing else happened, not even these.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from itertools import starmap
from threading import get_ident
from typing import Any

import jax
import jax.tree_util as jtu
from jax.extend.core import find_top_trace

from weft._config import set_auto_donation
from weft._lift.arguments import argument_paths, leaf_paths
from weft._lift.lease import NOTHING, settle
from weft._lift.lift import Lift, Spec
from weft._lift.plan import (
    Operands,
    Pattern,
    Plan,
    Plans,
    find_plan,
    gather,
    is_root,
    make_plan,
    pattern_of,
    remember,
    store_others,
)
from weft._lift.program import (
    ARRAYS,
    DONATED,
    KEPT,
    NotCompiledError,
    Program,
    UndonatableError,
    entry_sizes,
)
from weft._part import is_part
from weft._path import Path, format_path
from weft._reads import forget
from weft._trace import OUTERMOST, is_outermost
from weft._types import exhaust

_config: Any = jax.config
_debug_nans: Any = jax.debug_nans  # its value is read in C, that of an attribute of config is not
_debug_infs: Any = jax.debug_infs


class Structure:
    """What is compiled for one structure of arguments: with and without donation."""

    __slots__ = ("__weakref__", "donating", "plain")

    def __init__(self, plain: Program):
        self.plain = plain
        self.donating: Program | None = None


class Dispatcher:
    """Runs the calls of one function.

    Args:
      lift: the function.
      options: of `jax.jit`.
      donates: whether arrays of Variables that are written may be overwritten.
      on_trace: called with spec and avals of each trace, before the user's function runs.
      unplanned: runs a call that no plan can be made for, given its arguments.

    Attributes:
      token: what objects know the function by, without keeping it alive.
      rootless: the plans of calls without objects.
      calls: how many there were.
    """

    def __init__(
        self,
        lift: Lift,
        options: dict[str, Any],
        donates: bool,
        on_trace: Callable[[Spec, Any], None],
        unplanned: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    ):
        self._lift = lift
        self._options = options
        self._donates = donates
        self._on_trace = on_trace
        self._unplanned = unplanned
        self._structures: dict[Spec, Structure] = {}
        self._patterns: dict[tuple[Any, ...], Pattern] = {}
        self.token = object()
        self.rootless: Plans = {}
        self.calls = 0

    def make_function(self) -> Callable[..., Any]:
        """Returns what is called instead of the function.

        It is a function itself, as calling an object costs more than all that is done here.
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            # The plan of the last call comes first. Only its objects are looked at: JAX itself
            # sees whether the other arguments have the form that the plan is for.
            plans = args[0]._root_plans if args and is_root(args[0]) else self.rootless
            found = plans.get(self.token)
            if found is None:
                return self._call(args, kwargs)
            plan = found[0]
            is_same = plan.arity == len(args) and plan.watch.valid and plan.thread == get_ident()
            if not (is_same and (plan.is_simple or plan.fits(args))):
                return self._call(args, kwargs)
            rest, reading = plan.others_of(args), plan.reading
            try:
                if reading is None:
                    return self._run(plan, rest, kwargs)
                arrays, jitted = reading.arrays, reading.jitted()
                if arrays is None:
                    arrays = reading.read()
                if kwargs:
                    jitted = functools.partial(jitted, **kwargs)
                out = jitted(arrays, *rest)
                if type(out) is reading.array_type:
                    return out
                return self._finish_reading(plan, out, rest, kwargs)
            except Exception as error:
                if self._is_meant(error, plan, args, kwargs):
                    raise
            return self._call(args, kwargs)

        return call

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a call of whatever form."""
        leaves, treedef = jtu.tree_flatten((args, kwargs), is_root)
        pattern = self._pattern_of(args, kwargs, leaves, treedef)
        given = args if pattern.is_flat else leaves
        root = given[pattern.roots[0]] if pattern.roots else None
        plans = self.rootless if root is None else root._root_plans
        plan = find_plan(plans, self.token, given, pattern)
        if plan is None:
            plan = self._make_plan(leaves, given, pattern)
            if any(map(is_part, plan.values)):  # parts have no arrays of their own
                return self._unplanned(args, kwargs)
            remember(root, plans, self.token, plan)  # type: ignore[arg-type]
        try:
            return self._run(plan, *pattern.rest_of(args, kwargs, leaves))
        except (TypeError, ValueError) as error:
            self._explain(error, plan)
            raise

    def _pattern_of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], leaves: Sequence[Any], treedef: Any
    ) -> Pattern:
        """Returns the form of a call, the same object for the same form."""
        form = (treedef, *map(is_root, leaves))
        pattern = self._patterns.get(form)
        if pattern is None:
            pattern = self._patterns[form] = pattern_of(args, kwargs, leaves, treedef)
        return pattern

    def _is_meant(
        self, error: Exception, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Returns whether an error is for the user: whether the plan is for calls of this form."""
        leaves, treedef = jtu.tree_flatten((args, kwargs), is_root)
        is_same = self._pattern_of(args, kwargs, leaves, treedef) == plan.pattern
        if is_same and isinstance(error, (TypeError, ValueError)):
            self._explain(error, plan)
        return is_same

    def _run(self, plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs a call that a plan fits.

        What comes out of a program that donates is stored without a gap for an interrupt. Python
        handles signals when a call returns and between the rounds of a loop. Here the program is
        called by the unpacking of an iterator, which is neither, and one call from C stores all.

        Args:
          plan: the plan.
          rest: what is given to JAX besides the arrays of the plan's objects.
          named: likewise, by name.
        """
        # Arrays are not overwritten where JAX may want to read them again. What is asked here costs
        # more than it seems, on each call: in a loop, the caches are full of what the program does.
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
        if lease.shared or (lease.exposed and not lease.reclaim()):
            return self._run_plain(plan, rest, named)
        arrays = out = None
        again = self._run_plain
        lease.busy = True
        try:
            arrays = lease.arrays
            if arrays is None:
                arrays = lease.take(operands.donated)
            if not (lease.shared or lease.exposed):  # by another thread or a finalizer meanwhile
                lists = (arrays, gather(operands)) if operands.is_reading else (arrays,)
                if operands.has_effects:
                    interrupts.hold()
                (out,) = starmap(jitted, (lists + rest,))
                if lease.arrays is None:
                    lease.new = out[0]
                    exhaust(lease.store)
                    forget()
                else:
                    lease.arrays = out[0]
        except NotCompiledError:
            pass
        except UndonatableError as error:
            self._donate_less(plan, operands.program(), error.entries)
            again = self._run
        except BaseException as error:
            if out is None and any(array.is_deleted() for array in arrays or ()):
                error.add_note(
                    f"nnx.jit of {self._lift.name!r} failed after the arrays of the Variables it "
                    "writes were donated to it: they are gone. Restore the objects from a "
                    "checkpoint, or keep the arrays during calls: `nnx.jit(f, donate=None)`"
                )
            raise
        finally:
            lease.busy, lease.new, lease.store = False, (), NOTHING
            if interrupts.held:
                interrupts.release()
        if out is None:
            return again(plan, rest, named)
        return out[1] if len(out) == 2 else self._finish(plan, operands, out, (rest, named))

    def _run_prepared(self, plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs a call after making the program that donates, if there is none."""
        structure: Structure = plan.structure()
        settle()
        if structure.donating is None and not _config.jax_disable_jit:
            structure.donating = self._prepare(plan, structure.plain, rest, named)
        program = structure.donating
        if program is None or not program.donated:
            return self._run_plain(plan, rest, named)
        plan.donating = plan.operands(program)
        try:
            return self._run(plan, rest, named)
        finally:
            program.handover = None

    def _run_plain(self, plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs a call by the program that donates nothing."""
        settle()
        structure: Structure = plan.structure()
        operands = plan.operands(structure.plain)
        out = structure.plain.jitted(gather(operands), *rest, **named)
        donates = self._donates if structure.donating is None else bool(structure.donating.donated)
        if not donates and not operands.others:
            plan.reading = operands
        return self._finish_reading(plan, out, rest, named)

    def _finish_reading(
        self, plan: Plan, out: Any, rest: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Ends a call of a program that donates nothing.

        Args:
          plan: of the call.
          out: what came out of the program.
          rest: what JAX was given besides the arrays of the plan's objects.
          named: likewise, by name.
        """
        program = plan.structure().plain
        is_outer = is_outermost()
        is_array = type(out) is not tuple
        is_whole = is_array or len(out) == 2
        is_eager = not is_whole and program.outcomes[len(out[-1])].is_eager
        if is_eager or not is_outer:
            plan.expose()  # JAX may keep the very arrays that went in, or return them
        if is_array:
            if is_outer:
                plan.operands(program).array_type = type(out)
            return out
        if is_whole:
            return out[1]
        return self._finish(plan, plan.operands(program), out, (rest, named))

    def _finish(self, plan: Plan, operands: Operands, out: Any, rest: Any) -> Any:
        """Writes back what comes out besides donated Variables; returns what the function does."""
        _, others, marks = out
        program = operands.program()
        outcome = program.outcomes[len(marks)]
        written = outcome.exit.written
        if not outcome.is_plain or (written and not is_outermost()):
            return self._lift.leave(plan.call(rest), [others], outcome.exit)
        if written:
            store_others(program, plan, operands, len(marks), rest, others)
            others = others[len(written) :]
        return jtu.tree_unflatten(outcome.treedef, others)

    def _explain(self, error: Exception, plan: Plan) -> None:
        """Says in a note what JAX names by its place in the lists that it was given."""
        structure: Structure = plan.structure()
        text = str(error)
        for program in (structure.donating, structure.plain):
            names = {} if program is None else _names(self._lift, plan, program)
            found = [f"{name} is {path}" for name, path in names.items() if name in text]
            if found:
                error.add_note(f"Here {', '.join(found)}.")
                return

    # -- making plans and programs
    def _make_plan(self, leaves: Sequence[Any], given: Sequence[Any], pattern: Pattern) -> Plan:
        args, kwargs = jtu.tree_unflatten(pattern.treedef, leaves)
        paths = [path for path, _ in leaf_paths(self._lift.f, args, kwargs, is_root)]
        plan = make_plan(self._lift, leaves, given, pattern, paths)
        structure = self._structures.get(plan.spec)
        if structure is None:
            structure = Structure(self._make_program(plan, ()))
            self._structures[plan.spec] = structure
        plan.structure = weakref.ref(structure)
        return plan

    def _make_program(self, plan: Plan, donated: tuple[int, ...]) -> Program:
        rest = plan.pattern.rest
        return Program(self._lift, plan.spec, rest, donated, self._options, self._on_trace)

    def _prepare(
        self, plan: Plan, plain: Program, rest: tuple[Any, ...], named: dict[str, Any]
    ) -> Program:
        """Makes the program that donates."""
        make = functools.partial(self._make_program, plan)
        return plain.donate_written(gather(plan.operands(plain)), (rest, named), plan.values, make)

    def _donate_less(self, plan: Plan, program: Program, entries: frozenset[int]) -> None:
        """Puts a program in the place of one, which does not donate what is at some entries."""
        kept = tuple(i for i in program.donated if i not in entries)
        plan.structure().donating = replacement = self._make_program(plan, kept)
        replacement.has_effects = program.has_effects
        plan.donating = None


def _names(lift: Lift, plan: Plan, program: Program) -> dict[str, str]:
    """Returns where in the arguments things are that a program calls by their place."""
    record = program.spec.record
    paths: dict[int, list[Path]] = {DONATED: [], KEPT: [], ARRAYS: []}
    for entry, size, group in zip(
        program.spec.entries, entry_sizes(record), program.spec.layout, strict=True
    ):
        paths[group] += [entry.path] * size
    names = {f"donated[{i}]": path for i, path in enumerate(paths[DONATED])}
    names |= {f"kept[{i}]": path for i, path in enumerate(paths[KEPT])}
    pattern = plan.pattern
    arguments = argument_paths(lift.f, pattern.arity) if pattern.is_flat else paths[ARRAYS]
    places = pattern.others if pattern.is_flat else range(len(arguments))
    names |= {f"rest[{i}]": arguments[place] for i, place in enumerate(places)}
    return {name: format_path(path) for name, path in names.items()}
