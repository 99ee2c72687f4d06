import numpy as np
import pytest

from weft.nn.padding import canonicalize_padding, per_axis


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("same", "SAME"),
        (2, [(2, 2), (2, 2)]),
        ((1, 2), [(1, 1), (2, 2)]),
        ([(1, 2), 3], [(1, 2), (3, 3)]),
    ],
)
def test_canonicalize_padding(padding, expected):
    assert canonicalize_padding(padding, 2) == expected


@pytest.mark.parametrize("padding", [(1,), ((1, 2, 3), 1), None, ("a", "b"), 1.5])
def test_other_paddings_are_refused(padding):
    with pytest.raises(
        ValueError, match=r"expected a padding for 2 spatial axes, found .*2 ints or"
    ):
        canonicalize_padding(padding, 2)


@pytest.mark.parametrize(
    ("value", "expected"), [(3, (3, 3)), (None, (1, 1)), ([1, 2], (1, 2)), (np.int64(2), (2, 2))]
)
def test_per_axis(value, expected):
    assert per_axis(value, 2, owner="Layer", argument="strides") == expected


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), 0, (2, -1)])
def test_per_axis_refuses_other_numbers(value):
    message = r"Layer has 2 spatial axes and expects strides .*: use for example `strides=\(2, 2\)`"
    with pytest.raises(ValueError, match=message):
        per_axis(value, 2, owner="Layer", argument="strides")
