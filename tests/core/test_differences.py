"""Where static values differ, in words."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from weft._core.differences import narrow, text_of
from weft._core.static import key_of


@dataclasses.dataclass
class Config:
    rate: Any = 0.1
    sizes: Any = (1, 2)


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def function(x: Any, **options: Any) -> Any:
    return x


LINE = function.__code__.co_firstlineno

TEXTS: dict[str, Any] = {
    "1": 1,
    "'a'": "a",
    "0.5": 0.5,
    "(1+2j)": 1 + 2j,
    "(1, [2.0])": (1, [2.0]),
    "{'a': {1}}": {"a": {1}},
    "Config(rate=0.1, sizes=(1, 2))": Config(),
    "OrderedDict(a=1)": collections.OrderedDict(a=1),
    "SimpleNamespace(x=None)": types.SimpleNamespace(x=None),
    "deque(1, 2, maxlen=None)": collections.deque([1, 2]),
    "[0, 1, 2, 3, 4, 5, 6, 7, ...]": list(range(20)),
    f"function (test_differences.py:{LINE})": function,
    "array of float64, shape (2,)": np.zeros(2),
    "range(0, 3)": range(3),
    "bytearray(b'a')": bytearray(b"a"),
    "<class 'int'>": int,
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text: str) -> None:
    assert text_of(key_of(TEXTS[text])) == text


def test_texts_of_what_refuses_and_of_what_holds_itself() -> None:
    assert text_of(key_of(Silent())) == "<Silent>"
    assert text_of(key_of([Silent()])) == "<list>"
    value: list[Any] = [1]
    value.append(value)
    assert text_of(key_of(value)) == "[1, ...]"
    assert text_of(key_of(optax.linear_schedule(1.0, 0.0, 2))).startswith("polynomial_schedule.")
    key = key_of(lambda: None)
    assert text_of(key) == "<gone>"


def test_the_path_goes_as_far_as_parts_have_names() -> None:
    def path(a: Any, b: Any) -> Any:
        found, one, other = narrow(key_of(a), key_of(b))
        assert one != other
        return found

    assert path(Config(sizes=(1, 2)), Config(sizes=(1, 3))) == ("sizes", 1)
    assert path({"a": {1}}, {"a": {2}}) == ("a",)
    assert path({1: 2}, {1: 3}) == (1,)
    assert path({(1, 2): 2}, {(1, 2): 3})[0] == key_of((1, 2))
    assert path([1], [1, 2]) == ()
    assert path([1], (1,)) == ()
    assert path(np.array([1, [2]], object), np.array([1, [3]], object)) == (1, 0)
    assert path(functools.partial(function, 1, a=2), functools.partial(function, 1, a=3)) == ("a",)
    assert path(optax.constant_schedule(0.1), optax.constant_schedule(0.2)) == ("value",)
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    other: Any = 2
    for _ in range(30):
        other = [other]
    assert len(path(deep, other)) == 16
    assert path(jnp.ones(1), jnp.ones(1)) == ()
