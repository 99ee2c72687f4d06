"""Whole numbers that a caller gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from weft.train.whole import whole


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), jnp.int32(3)])
def test_whole_numbers_are_ints(value):
    found = whole("steps", value)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("value", [0, -1, 2.5, 3.0, "3", None, True, np.float32(3), [3]])
def test_anything_else_is_refused(value):
    with pytest.raises(
        ValueError, match=r"^steps must be a whole number from 1 on, or None; found"
    ):
        whole("steps", value, otherwise=", or None")


def test_a_float_is_told_how_it_becomes_one():
    with pytest.raises(ValueError, match=r"found 2\.5: `keep=int\(2\.5\)`"):
        whole("keep", 2.5)
    assert whole("step", 0, 0) == 0
