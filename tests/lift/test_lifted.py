"""What transforms that return functions have in common: how a function may be given."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import weft as nnx
from weft._core.types import MISSING
from weft._lift.jit.spec import Call
from weft._lift.lift import Lift, mode_of
from weft._lift.lifted import lifted


def checked(f: Any = MISSING, **options: Any) -> Any:
    """A transform that computes a function by way of `jax.checkpoint`."""

    def make(function: Any, bound: int) -> Lift:
        return Lift(function, "checked", mode_of(None, None), bound=bound)

    def apply(lift: Lift, call: Call) -> Any:
        pure = functools.partial(lift.pure, call.spec)
        return lift.leave(call, *jax.checkpoint(pure)(*call.groups))

    return lifted(f, make, apply, **options)


class Counter(nnx.Module):
    def __init__(self) -> None:
        self.n = nnx.Variable(jnp.zeros(()))

    def add(self, x: Any, times: int = 1) -> Any:
        """Adds to the count."""
        self.n[...] += x * range(times).stop  # of a number that is known alone
        return self.n * 10.0

    def __call__(self, x: Any) -> Any:
        return self.add(x)


FORMS: dict[str, Any] = {
    "function": lambda m, x: checked(Counter.add)(m, x),
    "decorator": lambda m, x: checked()(Counter.add)(m, x),
    "bound method": lambda m, x: checked(m.add)(x),
    "keyword": lambda m, x: checked(m.add)(x=x),
    "module": lambda m, x: checked(m)(x),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_function_however_it_is_given(name: str) -> None:
    model = Counter()
    for count in (2.0, 4.0):
        assert float(FORMS[name](model, 2.0)) == 10 * count
        assert float(model.n[...]) == count


def test_a_lifted_function_is_called_as_the_function() -> None:
    f = checked(Counter.add)
    assert (f.__name__, f.__doc__) == ("add", "Adds to the count.")
    assert inspect.signature(f) == inspect.signature(Counter.add)


@pytest.mark.parametrize("static", [2, -1, (2,)], ids=str)
def test_static_arguments_stay_as_they_are(static: Any) -> None:
    model = Counter()
    for call in (
        lambda: checked(Counter.add, static=static)(model, 1.0, 3),
        lambda: checked(Counter.add, static=static)(model, 1.0, times=3),
    ):
        call()
    assert float(model.n[...]) == 6.0
    checked(model.add, static=1)(1.0, 3)  # positions of a method count without its object
    assert float(model.n[...]) == 9.0


def test_a_position_that_the_function_does_not_have() -> None:
    found = r"halves=7 asks for position 7, .* of '.*add' are 0: self, 1: x, 2: times"
    with pytest.raises(ValueError, match=found):
        checked(Counter.add, static=7, option="halves")
