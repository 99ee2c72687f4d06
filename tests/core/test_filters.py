"""Filters: what each literal means, how they join, and what is no filter."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import pytest

import weft as nnx
from weft import filterlib
from weft._core.filters import (
    filter_flat,
    filter_text,
    filters_to_predicates,
    split_flat,
    to_predicate,
)

PARAM, STAT = nnx.Param(1.0, tag="head"), nnx.BatchStat(jnp.ones(2))
PATH = ("blocks", 3, "kernel")


def has_kernel(path: Any, value: Any) -> bool:
    return "kernel" in path


@pytest.mark.parametrize(
    ("filter", "of_param", "of_stat"),
    [
        (nnx.Param, True, False),
        (nnx.Variable, True, True),
        ("head", True, False),
        (..., True, True),
        (True, True, True),
        (None, False, False),
        (False, False, False),
        ([nnx.Param, nnx.BatchStat], True, True),
        ((nnx.BatchStat, "other"), False, True),
        ([], False, False),
        (has_kernel, True, True),
        (nnx.Not(nnx.Param), False, True),
        (nnx.All(nnx.Variable, "head"), True, False),
        (nnx.All(), True, True),
        (nnx.Any(), False, False),
        (nnx.Any("other", nnx.Not(nnx.Not(nnx.BatchStat))), False, True),
        (nnx.OfType(nnx.Param), True, False),
        (nnx.WithTag("head"), True, False),
        (nnx.Everything(), True, True),
        (nnx.Nothing(), False, False),
        (nnx.PathContains("kernel"), True, True),
        (nnx.PathContains(3), True, True),
        (nnx.PathContains("3"), False, False),
        (nnx.PathContains("kern"), False, False),
        (nnx.PathContains("kern", exact=False), True, True),
        (nnx.PathContains(3, exact=False), True, True),
        (filterlib.PathIn(PATH), True, True),
        (filterlib.PathIn(("blocks",)), False, False),
    ],
    ids=lambda x: getattr(x, "__name__", None) or str(x),
)
def test_meaning(filter: Any, of_param: bool, of_stat: bool) -> None:
    predicate = to_predicate(filter)
    assert predicate(PATH, PARAM) is of_param
    assert predicate(PATH, STAT) is of_stat
    assert nnx.Not(filter)(PATH, PARAM) is not of_param


def test_a_tag_of_what_has_none() -> None:
    assert not nnx.WithTag("x")((), jnp.ones(2))
    assert not nnx.WithTag("x")((), nnx.Variable({"a": 1}))


@pytest.mark.parametrize("filter", [3, 1.5, {"a": 1}, b"tag"])
def test_what_is_no_filter(filter: Any) -> None:
    found = re.escape(f"{filter!r} of type {type(filter).__name__} is not a filter: expected a Var")
    for use in (to_predicate, nnx.Not, lambda f: nnx.Any(nnx.Param, f)):
        with pytest.raises(nnx.FilterError, match=found):
            use(filter)


def test_the_rest_stands_last() -> None:
    found = r"`\.\.\.` matches everything, so the filters after it, .*could never match: put"
    for rest in (..., True):
        with pytest.raises(nnx.FilterError, match=found):
            filters_to_predicates([nnx.Param, rest, nnx.BatchStat])
        assert len(filters_to_predicates([nnx.Param, rest])) == 2
    assert len(filters_to_predicates([nnx.Param, ..., ...])) == 3
    assert filters_to_predicates([]) == ()


def test_a_filter_error_is_a_type_error_and_a_value_error() -> None:
    layer = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    for expected in (TypeError, ValueError):
        with pytest.raises(expected):
            nnx.state(layer, 3)  # type: ignore[arg-type]
        with pytest.raises(expected):
            nnx.split(layer, nnx.BatchStat)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nnx.OfType(nnx.Param),
        lambda: nnx.WithTag("x"),
        lambda: nnx.PathContains("x", exact=False),
        lambda: filterlib.PathIn(("a",), ("b", 0)),
        lambda: nnx.Any(nnx.Param, "x"),
        lambda: nnx.All(nnx.Param, nnx.Not("x")),
        lambda: nnx.Not(None),
        nnx.Everything,
        nnx.Nothing,
    ],
    ids="type tag path in any all not everything nothing".split(),
)
def test_compare_by_value(make: Any) -> None:
    a, b = make(), make()
    assert a == b
    assert hash(a) == hash(b)
    assert a != nnx.OfType(nnx.Cache)
    assert "object at" not in repr(a)


def test_text() -> None:
    joined = nnx.Any(nnx.Param, nnx.All("x", nnx.Not(...)))
    assert repr(joined) == (
        f"Any(OfType(type={nnx.Param!r}), All(WithTag(tag='x'), Not(Everything())))"
    )
    assert repr(filterlib.PathIn(("b", 0), ("a",))) == "PathIn(('a',), ('b', 0))"


def test_filters_see_the_paths_of_a_model() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Dict(body=nnx.List([nnx.Linear(1, 1, rngs=rngs)]), head=nnx.Linear(1, 1, rngs=rngs))
    head, biases, rest = nnx.state(
        model, nnx.PathContains("head"), lambda path, _: path[-1] == "bias", ...
    )
    assert nnx.to_flat_state(head).paths == (("head", "bias"), ("head", "kernel"))
    assert nnx.to_flat_state(biases).paths == (("body", 0, "bias"),)
    assert nnx.to_flat_state(rest).paths == (("body", 0, "kernel"),)


def test_filters_as_code() -> None:
    class Own(nnx.Variable[Any]):
        pass

    assert filter_text(nnx.Param) == "nnx.Param" and filter_text(Own) == "Own"
    assert filter_text((nnx.Param, "head", [..., None])) == "(nnx.Param, 'head', (..., None))"
    assert filter_text(nnx.Not(nnx.Param)) == repr(nnx.Not(nnx.Param))


def test_pairs_go_to_the_first_filter_that_matches() -> None:
    pairs = [(PATH, PARAM), (("mean",), STAT)]
    assert split_flat(pairs, (nnx.Param, ...)) == [pairs[:1], pairs[1:]]
    assert filter_flat(pairs, (nnx.BatchStat,)) == [pairs[1:]]
    found = re.escape(
        "the filters (nnx.Param) leave 1 of the Variables over: mean (BatchStat). Add"
    )
    with pytest.raises(nnx.FilterError, match=found):
        split_flat(pairs, (nnx.Param,))
