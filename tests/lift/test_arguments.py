"""Which parameter each argument belongs to."""

import functools

import pytest

from weft._lift.arguments import argument_paths, by_position, parameters_of, signature_beside
from weft._static import Static


def f(a, b=2, /, c=3, *rest, d=4, **others):
    pass


def test_parameters():
    assert parameters_of(f) == (("a", "b", "c"), "rest", {"b": 2, "c": 3, "d": 4})
    assert parameters_of(f) is parameters_of(f)
    assert parameters_of(functools.partial(f, 1)).names == ("b", "c")
    assert parameters_of(dict.fromkeys) == ((), None, {}) or parameters_of(dict.fromkeys).names

    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            pass

    assert parameters_of(Unhashable()).names == ("x",)


def test_paths_have_the_names_of_parameters():
    assert argument_paths(f, 2) == [("a",), ("b",)]
    assert argument_paths(f, 5) == [("a",), ("b",), ("c",), ("rest", 0), ("rest", 1)]
    assert argument_paths(max, 2) == [("args", 0), ("args", 1)]
    assert argument_paths(f, 2, skip=1) == [("b",), ("c",)]
    assert argument_paths(f, 2, skip=1, bound=1) == [("a",), ("c",)]
    assert argument_paths(f, 3, skip=-1) == [("functions",), ("a",), ("b",)]


@pytest.mark.parametrize(
    ("args", "kwargs", "number", "expected"),
    [
        ((1,), {"c": 7, "d": 8}, None, ((1, Static(2), 7), {"d": 8})),
        ((1, 5), {"c": 7, "e": 9}, None, ((1, 5, 7), {"e": 9})),
        ((1,), {"c": 7}, 2, ((1, Static(2)), {"c": 7})),
        ((1,), {}, 3, ((1, Static(2), Static(3)), {})),
        ((), {"c": 7}, None, ((), {"c": 7})),  # the call itself says that `a` is missing
        ((1, 5, 6, 7), {"d": 8}, 3, ((1, 5, 6, 7), {"d": 8})),
    ],
)
def test_keyword_arguments_move_to_their_positions(args, kwargs, number, expected):
    assert by_position(f, args, kwargs, number) == expected


def test_a_signature_beside_its_axes():
    shown = signature_beside(f, "f", 1, in_axes=(0, None), out_axes=0)
    assert shown == "\n  function: f(b, c, *rest)\n  in_axes:  (0, None)\n  out_axes: 0"
