"""Running: a call for which there is a plan, from gathering its arrays to writing back.

No Python code runs per Variable but one read and, if it was written, one store; where the same
function is called again and nothing else happened, not even these.
"""

from __future__ import annotations

import functools
from itertools import starmap
from threading import get_ident
from typing import Any

import jax
import jax.tree_util as jtu

from weft._core.config import set_auto_donation
from weft._core.trace import OUTERMOST, find_top_trace, is_outermost
from weft._core.types import exhaust
from weft._lift.jit.lease import NO_STORES, copy_array, settle
from weft._lift.jit.operands import Operands, gather, store_others
from weft._lift.jit.outcome import find_outcome
from weft._lift.jit.plan import Plan
from weft._lift.jit.program import Program, UntracedError
from weft._variable.keeper import set_raw
from weft._variable.reads import forget

_config: Any = jax.config
_debug_nans: Any = jax.debug_nans  # its value is read in C, that of an attribute of config is not
_debug_infs: Any = jax.debug_infs


def may_donate() -> bool:
    """Returns whether arrays may be overwritten: not where JAX may want to read them again."""
    return (
        find_top_trace(()) is OUTERMOST
        and not (_debug_nans.value or _debug_infs.value)
        and set_auto_donation.get()
    )


def run(plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Runs a call that a plan fits.

    What comes out of a program that donates is stored without a gap for a signal. Python handles
    signals when a call returns and between the rounds of a loop. Here the program is called by the
    unpacking of an iterator, which is neither, and one call from C stores all.

    Args:
      plan: the plan.
      rest: what is given to JAX besides the arrays of the plan's objects.
      named: likewise, by name.

    Raises:
      UntracedError: if the function has to be traced for this call.
    """
    operands = plan.donating
    if operands is None or (program := operands.program()) is None:
        return _run_prepared(plan, rest, named)
    # As `may_donate`. What is asked here costs more than it seems, on each call: in a loop, the
    # caches are full of what the program does.
    if not (
        find_top_trace(()) is OUTERMOST
        and not (_debug_nans.value or _debug_infs.value)
        and set_auto_donation.get()
    ):
        return run_plain(plan, rest, named)
    jitted = functools.partial(program.jitted, **named) if named else program.jitted
    lease, interrupts = operands.lease, program.interrupts
    holds = program.has_effects
    if lease.shared or lease.exposed:
        if lease.shared or not lease.reclaim(operands.donated):
            return run_plain(plan, rest, named)
        holds = True  # other arrays than before: JAX may not have seen their like
    arrays = out = None
    lease.busy = True
    try:
        arrays = lease.arrays if lease.is_holding else lease.lend(operands.donated)
        if not (lease.shared or lease.exposed):  # by another thread or a finalizer meanwhile
            lists = (arrays, gather(operands)) if program.is_reading else (arrays,)
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
                f"nnx.jit of {program.lift.name!r} failed after the arrays of the Variables it "
                "writes were donated to it: they are gone. Restore the objects from a "
                "checkpoint, or keep the arrays during calls: `nnx.jit(f, donate=None)`"
            )
        raise
    finally:
        lease.busy, lease.store = False, NO_STORES
        if interrupts.held:
            interrupts.release()
    if out is None:
        return run_plain(plan, rest, named)
    return out[1] if len(out) == 2 else _finish(plan, program, operands, out, (rest, named))


def _run_prepared(plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Runs a call of a plan that does not know yet whether it donates."""
    plain: Program | None = plan.program()
    if plain is None:
        raise UntracedError
    donating = plain if plain.donated else plain.donating
    if not (plain.donates and may_donate()) or plain.has_callbacks:
        return run_plain(plan, rest, named)
    if donating is None:
        raise UntracedError
    if not donating.donated:
        return run_plain(plan, rest, named)
    plan.donating = plan.operands(donating)
    return run(plan, rest, named)


def run_traced(plan: Plan, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Runs a call after tracing the function for it.

    Raises:
      UntracedError: if JAX sees other types in the call than in the trace.
    """
    if _config.jax_disable_jit:  # then there is nothing to trace
        return run_plain(plan, rest, named, may_trace=True)
    settle()
    plain: Program = plan.program()
    if plain.donated:  # compiled ahead of time
        return run(plan, rest, named)
    trace = plain.trace(plan.spec, gather(plan.operands(plain)), rest, named)
    if trace.has_callbacks:
        plain.note_callbacks()
        plan.donating = plan.reading = None
    if not (plain.donates and may_donate()) or plain.has_callbacks:
        return run_plain(plan, rest, named, may_trace=True)
    plain.donating = donating = trace.prepare(plain.donating, plan.values)
    plan.donating = plan.reading = None
    try:
        return run(plan, rest, named)
    finally:
        donating.handovers.pop(get_ident(), None)


def run_plain(
    plan: Plan, rest: tuple[Any, ...], named: dict[str, Any], may_trace: bool = False
) -> Any:
    """Runs a call by the program that donates nothing.

    Args:
      plan: the plan.
      rest: what JAX is given besides the arrays of the plan's objects.
      named: likewise, by name.
      may_trace: whether the function may be traced in passing, as inside of another trace.
    """
    settle()
    program: Program | None = plan.program()
    if program is None:
        raise UntracedError
    operands = plan.operands(program)
    if program.donated:  # the only one that was compiled, ahead of time
        return _run_copied(plan, program, operands, rest, named)
    is_outer = is_outermost()
    if program.has_callbacks or not is_outer:
        plan.expose()  # a callback may use the objects while the program has their arrays
    if program.has_callbacks and is_outer:
        out = _run_calling_back(plan, program, gather(operands), rest, named)
    elif is_outer and not may_trace:
        out = program.jitted(gather(operands), *rest, **named)
    else:
        with program.tracing(plan.spec):
            out = program.jitted(gather(operands), *rest, **named)
    if program.has_callbacks:
        plan.reading = None
    else:
        donating = program.donating
        donates = program.donates if donating is None else bool(donating.donated)
        if not donates and not operands.others:
            plan.reading = operands
    return finish_reading(plan, program, operands, out, rest, named)


def _run_calling_back(
    plan: Plan, program: Program, kept: list[Any], rest: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """Runs a program that calls back to the host.

    It ends before anything is written: a callback sees the objects as they were, and one that
    fails leaves them so. Inside of a callback, JAX would make another error of Ctrl-C.
    """
    try:
        program.interrupts.hold()
        with program.tracing(plan.spec):
            out = program.jitted(kept, *rest, **named)
        is_whole = find_outcome(program.outcomes, out) is None
        return out if is_whole else jax.block_until_ready(out)
    finally:
        if program.interrupts.held:
            program.interrupts.release()


def _run_copied(
    plan: Plan,
    program: Program,
    operands: Operands,
    rest: tuple[Any, ...],
    named: dict[str, Any],
) -> Any:
    """Runs a program that donates where the Variables' own arrays may not be overwritten."""
    arrays = [_copied(variable._raw) for variable in operands.donated]
    lists = (arrays, gather(operands)) if program.is_reading else (arrays,)
    out = program.jitted(*lists, *rest, **named)
    for variable, new in zip(operands.donated, out[0], strict=True):
        set_raw(variable, new)
    return out[1] if len(out) == 2 else _finish(plan, program, operands, out, (rest, named))


def _copied(array: Any) -> Any:
    return copy_array(array) if isinstance(array, jax.Array) and is_outermost() else array


def finish_reading(
    plan: Plan,
    program: Program,
    operands: Operands,
    out: Any,
    rest: tuple[Any, ...],
    named: dict[str, Any],
) -> Any:
    """Ends a call of a program that donates nothing.

    Args:
      plan: of the call.
      program: what ran.
      operands: the plan's for the program.
      out: what came out of it.
      rest: what JAX was given besides the arrays of the plan's objects.
      named: likewise, by name.
    """
    is_outer = is_outermost()
    outcome = find_outcome(program.outcomes, out)
    if not is_outer or (outcome is not None and outcome.is_eager):
        plan.expose()  # JAX may keep the very arrays that went in, or return them
    if outcome is not None:
        return _finish(plan, program, operands, out, (rest, named))
    if type(out) is tuple:
        return out[1]
    if is_outer:
        operands.array_type = type(out)
    return out


def _finish(plan: Plan, program: Program, operands: Operands, out: Any, rest: Any) -> Any:
    """Writes back what comes out besides donated Variables; returns what the function does."""
    _, others, marks = out
    outcome = program.outcomes[len(marks)]
    written = outcome.exit.written
    options = program.options
    is_simple = outcome.is_plain and not options.is_sharded
    if is_simple and not (written and not is_outermost()):
        # Made first: a pytree of the user's may refuse to be put together.
        made = jtu.tree_unflatten(outcome.treedef, others[len(written) :])
        find = lambda: plan.written(rest, written)  # noqa: E731
        if not written or store_others(operands, len(marks), find, others):
            return made
    plan.depend_on(outcome.snapshot)
    return program.lift.leave(plan.call(rest), options.groups_of(others), outcome.exit)
