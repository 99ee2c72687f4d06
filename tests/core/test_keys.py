"""What stands in keys for what is not compared by its parts."""

from __future__ import annotations

import mmap
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from weft._core.keys import ArrayKey, ByCopy, ByEquality, ByIdentity, array_key, bits_of, from_bits


def no_key(x: Any) -> Any:
    raise AssertionError("an array of numbers has no elements to look at")


def array(values: Any, *, fixed: bool) -> Any:
    made = np.asarray(values)
    made.setflags(write=not fixed)
    return made


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("other_is_fixed", [False, True])
def test_arrays_are_equal_by_content(fixed: bool, other_is_fixed: bool) -> None:
    one = ArrayKey(array([1.0, 2.0], fixed=fixed), no_key)
    same = ArrayKey(array([1.0, 2.0], fixed=other_is_fixed), no_key)
    assert one == same
    assert hash(one) == hash(same)
    for values in ([1.0, 3.0], [[1.0, 2.0]], [1, 2], [1.0]):
        other = ArrayKey(array(values, fixed=other_is_fixed), no_key)
        assert one != other
        assert not one.matches(array(values, fixed=other_is_fixed))
    assert one != "something else"
    assert one.matches(array([1.0, 2.0], fixed=other_is_fixed))
    assert repr(one) == "array of float64, shape (2,)"


def test_a_difference_in_the_middle_of_a_large_array() -> None:
    values = np.zeros(100_000)
    one = ArrayKey(values.copy(), no_key)
    values[50_000] = 1
    assert hash(one) == hash(ArrayKey(values, no_key))
    assert one != ArrayKey(values, no_key)
    assert not one.matches(values)


def test_what_is_below_an_array_decides_whether_it_may_change() -> None:
    fixed = {
        "bytes": np.frombuffer(b"12345678", np.uint8),
        "array of JAX": np.asarray(jnp.ones(2)),
        "mapped": array(np.frombuffer(mmap.mmap(-1, 8), np.uint8), fixed=True),
        "number": np.float32(1),
    }
    changing = {
        "own": np.ones(2),
        "view": np.ones(2)[:1],
        "bytearray": array(np.frombuffer(bytearray(b"12345678"), np.uint8), fixed=True),
        "record": np.zeros(1, [("a", int)])[0],
    }
    for name, value in fixed.items():
        assert ArrayKey(value, no_key)._fixed is value, name
    for name, value in changing.items():
        assert ArrayKey(value, no_key)._fixed is None, name


def test_an_array_keeps_its_key_while_it_stays_as_it_is() -> None:
    value = np.zeros(2)
    key = array_key(value, no_key)
    assert array_key(value, no_key) is key
    value.setflags(write=False)
    assert array_key(value, no_key) == key
    value.setflags(write=True)
    value[0] = 1
    assert array_key(value, no_key) != key


class Broken:
    def __init__(self, x: int):
        self.x = x

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        return 1

    def __deepcopy__(self, memo: Any) -> Broken:
        return Broken(self.x)

    def __repr__(self) -> str:
        return "Broken"


def test_errors_of_a_comparison_mean_unequal() -> None:
    value, other = Broken(1), Broken(1)
    assert ByEquality(value) == ByEquality(value)
    assert ByEquality(value) != ByEquality(other)
    assert ByEquality(1) != ByEquality(True)
    key = ByCopy(value)
    assert key == key
    assert key != ByCopy(value)
    assert not key.matches(value)
    assert [repr(x) for x in (ByEquality(value), key, ByIdentity(value))] == ["Broken"] * 3


def test_identity_of_what_cannot_be_referred_to_weakly() -> None:
    value = (1, 2)
    assert ByIdentity(value) == ByIdentity(value)
    assert ByIdentity(value) != ByIdentity((*value, 3)[:2])
    assert ByIdentity(value) != value


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, float("inf"), 1j, complex(-0.0, 2.0)])
def test_bits_there_and_back(value: Any) -> None:
    assert repr(from_bits(type(value), bits_of(value))) == repr(value)
