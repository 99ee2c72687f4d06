"""Which parameter each argument belongs to."""

import functools

import pytest

from weft._core.arguments import (
    argument_paths,
    as_tuple,
    by_position,
    parameters_of,
    select_arguments,
    signature_beside,
    takes_keyword,
)
from weft._core.static import Static


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


# -- arguments chosen by position and name


def g(m, x, mode="a", *, flag=False):
    pass


def test_numbers_and_names_as_tuples():
    assert [as_tuple(x) for x in (None, 1, "a", [1, 2])] == [(), (1,), ("a",), (1, 2)]


@pytest.mark.parametrize(
    ("argnums", "argnames", "bound", "expected"),
    [
        (2, None, 0, ({2}, {"mode"})),
        ((-1, 0), None, 0, ({0, 2}, {"m", "mode"})),
        (1, None, 1, ({2}, {"mode"})),
        (-1, None, 1, ({2}, {"mode"})),
        (None, ("mode", "flag"), 0, ({2}, {"mode", "flag"})),
        (1, "flag", 0, ({1}, {"flag"})),
        ((), None, 0, (set(), set())),
    ],
)
def test_positions_and_names_complete_each_other(argnums, argnames, bound, expected):
    assert select_arguments(g, argnums, argnames, bound=bound) == expected


def test_without_a_signature_positions_are_taken_as_they_are():
    assert select_arguments(max, (0, -1), bound=1).positions == {1, -1}
    assert select_arguments(lambda a, *rest: None, (3, -1)).positions == {3, -1}


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, 2, 3), {}, ((1, 2, Static(3)), {})),
        ((1, 2), {"mode": 3}, ((1, 2), {"mode": Static(3)})),
        ((1, 2), {}, ((1, 2), {})),
        ((1,), {"x": 2, "flag": 4}, ((1,), {"x": 2, "flag": 4})),
    ],
)
def test_an_argument_is_found_however_it_is_given(args, kwargs, expected):
    assert select_arguments(g, 2).mark_static(args, kwargs) == expected
    assert select_arguments(g, -1).mark_static(args, kwargs) == expected


def test_the_end_of_further_arguments():
    static = select_arguments(lambda a, *rest: None, -1)
    assert static.mark_static((1, 2, 3), {}) == ((1, 2, Static(3)), {})


def test_wrong_positions_and_names():
    with pytest.raises(
        ValueError, match=r"static_argnums=5 asks for position 5, .* of 'g' are 0: m"
    ):
        select_arguments(g, 5)
    with pytest.raises(ValueError, match=r"asks for position -3, but .* are 0: x, 1: mode$"):
        select_arguments(g, (0, -3), bound=1, option="donate_argnums")
    with pytest.raises(ValueError, match=r"positional arguments of '.*<lambda>' are none$"):
        select_arguments(lambda: None, 0)
    with pytest.raises(TypeError, match=r"static_argnums must be positions, as in .*, found 'x'"):
        select_arguments(g, "x")
    with pytest.raises(TypeError, match=r"static_argnums must be positions, .*, found 1\.5"):
        select_arguments(g, 1.5)
    with pytest.raises(ValueError, match=r"'g' has no argument 'what'; it has m, x, mode, flag"):
        select_arguments(g, None, "what")


def test_keywords_that_a_function_takes():
    def f(a, /, b, *rest, c=1): ...

    assert [takes_keyword(f, name) for name in ("a", "b", "rest", "c", "d")] == [0, 1, 0, 1, 0]
    assert takes_keyword(lambda **rest: None, "any")
