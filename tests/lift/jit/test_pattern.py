"""Forms of calls: each is found again, in whatever order they come, and traced once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.lift.donated import Model
from weft._lift.jit import dispatch


def total(tree: Any) -> Any:
    """Adds up all that is in a call, objects included."""
    return sum(jnp.sum(jnp.asarray(x, jnp.float32)) for x in jax.tree.leaves(tree))


def reading(*args: Any, **kwargs: Any) -> Any:
    arrays = [x.w[...] if isinstance(x, Model) else x for x in _leaves((args, kwargs))]
    return total(arrays)


def writing(*args: Any, **kwargs: Any) -> Any:
    for x in _leaves((args, kwargs)):
        if isinstance(x, Model):
            x.w[...] = x.w[...] + 1
    return reading(*args, **kwargs)


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Model))


x = jnp.ones(2)
FORMS: dict[str, Callable[[Model], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "array": lambda m: ((m, x), {}),
    "None": lambda m: ((m, None), {}),
    "two arrays": lambda m: ((m, x, x), {}),
    "None between": lambda m: ((m, x, None, x), {}),
    "keyword": lambda m: ((m, x), {"mask": x}),
    "another keyword": lambda m: ((m, x), {"bias": x}),
    "keyword None": lambda m: ((m, x), {"mask": None}),
    "dict": lambda m: ((m, {"a": x}), {}),
    "dict of other keys": lambda m: ((m, {"b": x}), {}),
    "larger dict": lambda m: ((m, {"a": x, "b": x}), {}),
    "list": lambda m: ((m, [x]), {}),
    "nested": lambda m: ((m, {"a": [x, (x, None)]}), {}),
    "object inside": lambda m: (((m, x),), {}),
    "object by name": lambda m: ((x,), {"model": m}),
    "object later": lambda m: ((x, m), {}),
}
SAME = {"number": lambda m: ((m, 1.0), {}), "numpy": lambda m: ((m, np.ones(2)), {})}


@pytest.mark.parametrize("function", [reading, writing])
def test_forms_in_any_order(function: Callable[..., Any]) -> None:
    m, plain = Model(), Model()
    jitted = nnx.jit(function, on_retrace=None)
    chance = random.Random(0)
    for name in (*FORMS, *chance.choices([*FORMS], k=60)):
        args, kwargs = FORMS[name](m)
        found = jitted(*args, **kwargs)
        args, kwargs = FORMS[name](plain)
        np.testing.assert_allclose(found, function(*args, **kwargs), err_msg=name)
    np.testing.assert_array_equal(m.w, plain.w)
    assert jitted.cache_info().traces == len(FORMS)


PAIRS = [
    *itertools.combinations(["array", "None", "keyword", "dict"], 2),
    ("dict", "dict of other keys"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_forms_in_turn_end_no_call(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    m, jitted = Model(), nnx.jit(writing)
    calls = [FORMS[name](m) for name in pair]
    for args, kwargs in calls * 3:
        jitted(*args, **kwargs)
    monkeypatch.setattr(dispatch.Dispatcher, "_call", None)  # which looks for a plan at length
    for args, kwargs in calls * 3:
        jitted(*args, **kwargs)


def test_what_jax_takes_for_the_same_form() -> None:
    m, jitted = Model(), nnx.jit(reading, on_retrace=None)
    for make in (FORMS["array"], FORMS["dict"], *SAME.values(), FORMS["array"], *SAME.values()):
        args, kwargs = make(m)
        np.testing.assert_allclose(jitted(*args, **kwargs), reading(*args, **kwargs))
    assert jitted.cache_info().traces == 3  # one for each aval


def test_forms_inside_of_a_trace() -> None:
    m, jitted = Model(), nnx.jit(reading, on_retrace=None)
    for names in (("array", "None", "array"), ("dict", "larger dict", "None")):
        for name in names:
            args, kwargs = FORMS[name](m)
            outer = jax.jit(lambda given: jitted(*given[0], **given[1]))
            np.testing.assert_allclose(outer((args, kwargs)), reading(*args, **kwargs))


def test_forms_of_one_object_inside_of_another_function() -> None:
    jitted = nnx.jit(writing, on_retrace=None)

    def each(m: Model, x: Any, function: Any) -> list[Any]:
        return [function(m, given) for given in (x, None, {"a": x}, [x], {"b": x}, x)]

    m, plain = Model(), Model()
    for _ in range(2):
        found = nnx.jit(lambda m, x: each(m, x, jitted))(m, x)
        np.testing.assert_allclose(found, each(plain, x, writing))
        np.testing.assert_array_equal(m.w, plain.w)
