"""Variables that functions close over count as settled only if nothing is left to bind them."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import optax
import pytest

from weft._graph.closures import unsettled


def of_arguments(a: int, b: int) -> Callable[..., Any]:
    return lambda: (a, b)


def of_a_local(n: int) -> Callable[..., Any]:
    doubled = 2 * n
    return lambda: doubled


def of_both_functions(a: int) -> Callable[..., Any]:
    def middle(b: int) -> Callable[..., Any]:
        return lambda: (a, b)

    return middle(2)


def bound_by_a_sibling(a: int, b: int) -> Callable[..., Any]:
    def bind() -> None:
        nonlocal a
        a = 3

    assert callable(bind)
    return lambda: (a, b)


def deleted_by_a_sibling(a: int) -> Callable[..., Any]:
    def middle() -> Callable[[], None]:
        def forget() -> None:
            nonlocal a
            del a

        return forget

    assert callable(middle)
    return lambda: a


def sibling_with_variables_of_its_own(a: int) -> Callable[..., Any]:
    def other() -> Callable[[], int]:
        b = a
        return lambda: b

    assert callable(other)
    return lambda: a


def generator(a: int) -> Iterator[Callable[..., Any]]:
    yield lambda: a
    a = 2


def wrapped(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f)
    def call(*args: Any) -> Any:
        return f(*args)

    return call


@wrapped
def decorated(a: int) -> Callable[..., Any]:
    return lambda: a


class Class:
    def method(self) -> Callable[..., Any]:
        return lambda: self

    @staticmethod
    def static(a: int) -> Callable[..., Any]:
        return lambda: a


def replaced(a: int) -> Callable[..., Any]:
    return lambda: a


_of_the_first = replaced(1)


def replaced(a: int) -> Callable[..., Any]:
    return lambda: (a, a)


def names(function: Any) -> list[str]:
    """Returns the names of the variables that may change."""
    cells = unsettled(function)
    pairs = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [name for name, cell in pairs if any(cell is x for x in cells)]


CASES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "no closure": (lambda: names, []),
    "arguments": (lambda: of_arguments(1, 2), []),
    "a local variable": (lambda: of_a_local(1), []),
    "two functions around": (lambda: of_both_functions(1), []),
    "a method": (lambda: Class().method(), []),
    "a static method": (lambda: Class.static(1), []),
    "a decorated function": (lambda: decorated(1), []),
    "a library's": (lambda: optax.adam(1e-3).update, []),
    "a sibling binds one": (lambda: bound_by_a_sibling(1, 2), ["a"]),
    "an inner function of a sibling deletes it": (lambda: deleted_by_a_sibling(1), ["a"]),
    "a sibling binds its own": (lambda: sibling_with_variables_of_its_own(1), []),
    "a generator": (lambda: next(generator(1)), ["a"]),
    "a function whose name means another now": (lambda: _of_the_first, ["a"]),
}


@pytest.mark.parametrize("case", CASES)
def test_which_variables_may_change(case: str) -> None:
    make, expected = CASES[case]
    assert names(make()) == expected


def test_the_function_around_still_runs() -> None:
    seen = []

    def inside() -> int:
        seen.append(names(inside))
        return value

    value = 1
    inside()
    value = 2
    assert seen == [["inside", "seen", "value"]]


def while_it_runs(ask: Callable[[Any], None]) -> None:
    a = 1
    ask(lambda: a)
    a = 2


def test_the_function_around_runs_in_another_thread() -> None:
    handed, asked = threading.Event(), threading.Event()
    found: list[types.FunctionType] = []

    def ask(function: types.FunctionType) -> None:
        found.append(function)
        handed.set()
        assert asked.wait(10)

    thread = threading.Thread(target=while_it_runs, args=(ask,))
    thread.start()
    assert handed.wait(10)
    assert names(found[0]) == ["a"]
    asked.set()
    thread.join()
    assert names(found[0]) == []


def test_a_module_that_is_gone() -> None:
    function = of_arguments(1, 2)
    function.__module__ = "gone"
    assert names(function) == ["a", "b"]
