"""Calls of a compiled function by plans: the hot path of `nnx.jit`.

A call looks for a plan, gathers the arrays of its Variables, runs the program and stores what comes
out. No Python code runs per Variable but one read and, if it was written, one store.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.tree_util as jtu

from weft import _trace
from weft._config import set_auto_donation
from weft._lift.arguments import argument_paths
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
    plans_of,
    remember,
    run_and_store,
    store_others,
)
from weft._lift.program import Program, UndonatableError
from weft._part import is_part
from weft._path import Path, key_of_entry
from weft._variable import get_slot

_config: Any = jax.config


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
        self._token = object()  # what objects know the function by, without keeping it alive
        self._structures: dict[Spec, Structure] = {}
        self._rootless: Plans = {}  # plans of calls without objects

    def call(self, leaves: Sequence[Any], pattern: Pattern) -> Any:
        """Runs a call, given its objects and arrays and their form."""
        plans = plans_of(leaves[pattern.roots[0]]) if pattern.roots else self._rootless
        plan = find_plan(plans, self._token, leaves, pattern)
        if plan is None:
            plan = self._make_plan(leaves, pattern)
            if any(map(is_part, plan.values)):  # parts have no arrays of their own
                return self._unplanned(*jtu.tree_unflatten(pattern.treedef, leaves))
            remember(plans, self._token, plan)
        arrays = [leaves[i] for i in pattern.arrays]
        structure: Structure = plan.structure()
        is_outermost = _trace.is_outermost()
        if is_outermost and self._donates:
            program = structure.donating or self._prepare(plan, structure, arrays)
            if program is not None and program.donated and _may_donate():
                operands = plan.operands(program)
                lease = operands.lease
                try:
                    with lease.lock:
                        if not lease.shared and (not lease.exposed or lease.reclaim()):
                            return self._donate(plan, program, operands, arrays)
                except UndonatableError as error:
                    kept = tuple(i for i in program.donated if i not in error.entries)
                    structure.donating = self._make_program(plan.spec, kept)
                    return self.call(leaves, pattern)
        if not is_outermost or _config.jax_disable_jit:
            plan.expose()  # JAX may keep the very arrays that go in, or return them
        program = structure.plain
        operands = plan.operands(program)
        _, others, number = program.jitted([], gather(operands), arrays)
        return self._finish(plan, program, operands, others, len(number), arrays, is_outermost)

    # -- making plans and programs
    def _make_plan(self, leaves: Sequence[Any], pattern: Pattern) -> Plan:
        leaves = list(leaves)
        arguments = jtu.tree_unflatten(pattern.treedef, leaves)
        paths = _leaf_paths(self._lift.f, len(arguments[0]), arguments)
        plan = make_plan(self._lift, leaves, pattern, paths)
        structure = self._structures.get(plan.spec)
        if structure is None:
            structure = Structure(self._make_program(plan.spec, ()))
            self._structures[plan.spec] = structure
        plan.structure = weakref.ref(structure)
        return plan

    def _make_program(self, spec: Spec, donated: tuple[int, ...]) -> Program:
        return Program(self._lift, spec, donated, self._options, self._on_trace)

    def _prepare(self, plan: Plan, structure: Structure, arrays: list[Any]) -> Program | None:
        """Makes the program that donates, where that is possible now."""
        if _may_donate():
            structure.donating = structure.plain.donate_written(
                ([], gather(plan.operands(structure.plain)), arrays),
                plan.values,
                functools.partial(self._make_program, plan.spec),
            )
        return structure.donating

    # -- running them
    def _donate(self, plan: Plan, program: Program, operands: Operands, arrays: list[Any]) -> Any:
        lease, interrupts = operands.lease, program.interrupts
        lease.busy = True
        try:
            if program.has_effects:
                interrupts.hold()
            others, number = run_and_store(program, operands.donated, gather(operands), arrays)
        except BaseException as error:
            if any(array.is_deleted() for array in map(get_slot, operands.donated)):
                error.add_note(
                    f"nnx.jit of {self._lift.name!r} failed after the arrays of the Variables it "
                    "writes were donated to it: they are gone. Restore the objects from a "
                    "checkpoint, or keep the arrays during calls: `nnx.jit(f, donate=None)`"
                )
            raise
        finally:
            lease.busy = False
            program.handover = None
            if interrupts.held:
                interrupts.release()
        return self._finish(plan, program, operands, others, len(number), arrays, True)

    def _finish(
        self,
        plan: Plan,
        program: Program,
        operands: Operands,
        others: list[Any],
        number: int,
        arrays: list[Any],
        is_outermost: bool,
    ) -> Any:
        outcome = program.outcomes[number]
        if outcome.is_array:
            return others[0]
        written = outcome.exit.written
        if not outcome.is_plain or (written and not is_outermost):
            return self._lift.leave(plan.call(arrays), [others], outcome.exit)
        if written:
            store_others(program, plan, operands, number, arrays, others)
            others = others[len(written) :]
        return jtu.tree_unflatten(outcome.treedef, others)


def _may_donate() -> bool:
    """Returns whether arrays may be overwritten: not where JAX may want to read them again."""
    config = _config
    if config.jax_debug_nans or config.jax_debug_infs or config.jax_disable_jit:
        return False
    return set_auto_donation.get()


def _leaf_paths(f: Any, number: int, arguments: Any) -> list[Path]:
    """Returns a path, by the names of the parameters, for each object and array of a call."""
    names = argument_paths(f, number)
    paths = []
    for entries, _ in jtu.tree_flatten_with_path(arguments, is_root)[0]:
        kind, first, *rest = map(key_of_entry, entries)
        paths.append((*(names[first] if kind == 0 else (first,)), *rest))
    return paths
