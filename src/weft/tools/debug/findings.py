"""Findings: which of all that programs tell is the first, and what is said of it.

*Sessions* listen to what programs tell. What a program tells may arrive in another order than it
came about in, so a session takes what belongs together, one pass through one outermost call, and
looks for the first there. A program has begun again when something is told a second time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from weft._core.errors import WeftError
from weft._core.path import Path, format_path
from weft.tools.debug.checks import Number, Point, Site

_MOST = 100_000


class NonFiniteError(WeftError, FloatingPointError):
    """A module made NaN or an infinity, or was given one.

    Attributes:
      path: the path of the module in which it appeared first; or of the Variable or output that
        has it, where no module made it.
      phase: "forward" or "backward"; "outside" where no module made it.

    Example:
      >>> import jax.numpy as jnp
      >>> import weft as nnx
      >>> class Root(nnx.Module):
      ...     def __call__(self, x):
      ...         return jnp.sqrt(x)
      >>> model = nnx.Sequential(nnx.Identity(), Root())
      >>> with nnx.debug.nans(model):
      ...     y = model(jnp.array([1.0, -1.0]))
      Traceback (most recent call last):
        ...
      weft.tools.debug.findings.NonFiniteError: model.layers[1] is the first to make NaN, in the
      forward pass: Root.__call__ returned 1 NaN in output f32[2], from x f32[2], which is finite...
    """

    def __init__(self, message: str, path: str, phase: str):
        super().__init__(message)
        self.path, self.phase = path, phase


class Told(NamedTuple):
    """What a program told once: where, in which iterations, and the counts of each array."""

    site: Site
    numbers: tuple[int, ...]
    counts: tuple[tuple[int, int], ...]

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """What a program tells once each time that it runs."""
        return self.site.order, self.numbers

    @property
    def is_backward(self) -> bool:
        """Returns whether that was in the backward pass."""
        return self.site.point.is_backward

    def is_bad(self, infinities: bool) -> bool:
        """Returns whether something is wrong here.

        An infinite argument alone is not, nor a Variable that is no Param: masks have them.
        """
        number = len(self.counts) - self.site.params
        for i, (nans, infinite) in enumerate(self.counts):
            may_be = self.site.point == Point(False, False) and i < number
            if nans or (infinite and infinities and not may_be):
                return True
        return False

    def when(self) -> tuple[int, ...]:
        """Returns a key by which what one pass tells is in the order of the program."""
        found: list[int] = []
        for (entered, is_reversed), number in zip(self.site.loops, self.numbers, strict=True):
            found += [entered, -number if is_reversed else number]
        found.append(self.site.order)
        return tuple(-x for x in found) if self.site.point.is_backward else tuple(found)


class Session:
    """Listens to what programs tell, until they have told what was first.

    Args:
      infinities: whether infinities count.
      thread: the thread whose programs it listens to; 0 for those of no thread.
    """

    def __init__(self, infinities: bool, thread: int = 0):
        self._infinities = infinities
        self.thread = thread
        self._lock = threading.Lock()
        self._run: dict[Any, Told] = {}
        self._bad: list[Told] = []
        self._is_over = False

    def note(self, told: Told) -> None:
        """Takes in what a program told."""
        with self._lock:
            if self._is_over:
                return
            if told.key in self._run or len(self._run) >= _MOST:
                if self._bad:
                    self._is_over = True
                    return
                self._run.clear()
            self._run[told.key] = told
            if told.is_bad(self._infinities):
                self._bad.append(told)

    def error(self) -> NonFiniteError | None:
        """Returns what is to be raised, None if all was well."""
        with self._lock:
            if not self._bad:
                return None
            began = self._bad[0]
            bad = [told for told in self._bad if told.site.root == began.site.root]
            # Of the backward pass may arrive first what comes last, where both are in one loop:
            # so what was bad in the forward pass of this iteration was so before.
            chosen = [x for x in bad if not x.is_backward and x.numbers == began.numbers]
            if not began.is_backward or not chosen:
                chosen = [x for x in bad if x.is_backward == began.is_backward]
            return _error(min(chosen, key=Told.when), list(self._run.values()))


_sessions: list[Session] = []


def tell(site: Site, numbers: Sequence[Any], counts: Sequence[Any]) -> None:
    """Tells all sessions of the thread that a program was traced in; called by programs."""
    told = Told(site, tuple(map(int, numbers)), tuple((int(a), int(b)) for a, b in counts))
    for session in tuple(_sessions):
        if session.thread == site.thread:
            session.note(told)


def begin(session: Session) -> None:
    """Lets a session listen."""
    _sessions.append(session)


def end(session: Session) -> None:
    """Ends that."""
    _sessions.remove(session)


# -- what is said


def _shown(path: Path, numbers: Sequence[int]) -> str:
    root, *keys = path
    shown = (numbers[key.loop] if isinstance(key, Number) else key for key in keys)
    return format_path(tuple(shown), root)


def amount(nans: int, infinite: int) -> str:
    """Says how many elements are NaN and infinite."""
    parts = [f"{nans} NaN"] * bool(nans) + [f"{infinite} infinite"] * bool(infinite)
    return " and ".join(parts)


def _bad(told: Told, prefix: str = "") -> str:
    """Lists the arrays that are not finite."""
    pairs = zip(told.site.names, told.counts, strict=True)
    return ", ".join(
        f"{amount(*counts)} in {prefix}{name}" for name, counts in pairs if any(counts)
    )


def _given(told: Told, run: Sequence[Told]) -> str:
    """Lists what there was before a module made what is not finite, and what was bad of that."""
    point = told.site.point._replace(is_after=False)
    at = told.site.call, point, told.numbers
    found = [other for other in run if (other.site.call, other.site.point, other.numbers) == at]
    if not found:  # there are none; or they have not arrived, of a call that is mapped by `vmap`
        names = ", ".join(told.site.before) or "no floating-point arrays"
        return "gradients of its outputs" if point.is_backward else names
    (before, *_) = found
    names = [
        f"{name} ({amount(*counts)})" if any(counts) else name
        for name, counts in zip(before.site.names, before.counts, strict=True)
    ]
    verb = "is" if len(names) == 1 else "are"
    finite = "" if any(map(any, before.counts)) else f", which {verb} finite"
    return f"{'gradients of ' * point.is_backward}{', '.join(names)}{finite}"


_BOUNDS = (
    "Keep what it computes within bounds, as in `jnp.log(jnp.maximum(x, 1e-6))`, or compute it in "
    "float32, `dtype=jnp.float32`"
)
_SLOPE = (
    "A function with an infinite slope there, as `jnp.sqrt` has at 0, needs another argument "
    "before it, `jnp.sqrt(jnp.where(x > 0, x, 1.0))`: a `where` after it does not help"
)
_FIRST = "{where} is the first to make {kind}, in the {phase} pass"
_TEXTS = {
    ("forward", "after"): f"{_FIRST}: {{what}} returned {{bad}}, from {{given}}. {_BOUNDS}",
    ("backward", "after"): f"{_FIRST}: {{what}} gave {{gradients}}, from {{given}}. {_SLOPE}",
    ("forward", "between"): f"{_FIRST}, before it calls {{path}}: {{bad}} of {{what}}. {_BOUNDS}",
    ("backward", "between"): (
        f"{_FIRST}, after it has called {{path}}: {{gradients}} of {{what}}. {_SLOPE}"
    ),
    ("forward", "variable"): (
        "{where} holds {kind} when the forward pass begins to use it: {bad} of {what}. The step "
        "before wrote it: a lower learning rate may help, or `optax.clip_by_global_norm(1.0)`"
    ),
    ("forward", "outside"): (
        "{where} is given {kind}: {bad} of {what}. Look at the data and what is done with it "
        "before: `jnp.isfinite(x).all()`"
    ),
    ("backward", "outside"): (
        "the gradient that reaches {where} from outside has {kind}: {gradients} of {what}, in the "
        "backward pass. Look at the loss, and what else is done with the output: "
        "`jnp.log(x + 1e-6)`"
    ),
}
"""What is said, by pass and by where something is not finite: after the call of a module, before it
between calls in another one, in its Variables, or outside of all modules."""


def _error(told: Told, run: Sequence[Told]) -> NonFiniteError:
    site, numbers = told.site, told.numbers
    path = where = _shown(site.path, numbers)
    phase = "backward" if site.point.is_backward else "forward"
    pairs = list(zip(site.names, told.counts, strict=True))
    bad_variables = [n for n, counts in pairs[len(pairs) - site.variables :] if any(counts)]
    if site.point.is_after:
        place = "after"
    elif bad_variables and phase == "forward":
        place, where = "variable", f"{path}.{bad_variables[0].partition(' ')[0]}"
    elif site.parent is not None:
        place, where = "between", _shown(site.parent, numbers)
    else:
        place = "outside"
    text = _TEXTS[phase, place].format(
        where=where,
        path=path,
        phase=phase,
        kind="NaN" if any(nans for nans, _ in told.counts) else "infinities",
        what=site.what,
        bad=_bad(told),
        gradients=_bad(told, "the gradient of "),
        given=_given(told, run),
    )
    return NonFiniteError(text, where, phase)
