"""What weights are called in files."""

import pytest

import weft as nnx
from weft.tools.weights.layout import Layout
from weft.tools.weights.namer import Namer
from weft.tools.weights.rules import parse_rules

from .models import linear, net


def names(model, rules=None, **options):
    return list(Namer(Layout(model), parse_rules(rules), **options).links())


def test_names_of_pytorch():
    assert names(linear()) == ["bias", "weight"]


def test_what_is_shared_has_a_name_by_each_rule_that_leads_to_it():
    model = linear()
    both = {"a": model, "b": model}
    assert names(both) == ["a.bias", "a.weight"]
    assert names(both, {"x": "a"}) == ["x.bias", "x.weight"]
    assert names(both, {"x": "a", "y": "b"}) == ["x.bias", "x.weight", "y.bias", "y.weight"]
    assert names(both, {"x": "a", "y.w": "b.kernel"}) == ["x.bias", "x.weight", "y.w"]
    # What it is in as a whole is no other name.
    assert names(both, {"m": ""}) == ["m.a.bias", "m.a.weight"]
    assert names({"in": both, "c": linear()}, {"x": "in", "y": "c"}) == [
        *("x.a.bias", "x.a.weight"),
        *("y.bias", "y.weight"),
    ]


def test_the_part_counts_before_the_whole():
    assert names(net(), {"a": "blocks", "b.{i}": "blocks[{i}].norm"})[:2] == [
        "a.0.up.bias",
        "a.0.up.weight",
    ]


def test_what_leads_nowhere_is_left_out_if_asked_for():
    rules = {"x": "nowhere", "y": ["kernel", "nowhere"], "bias": "kernel"}
    assert names(linear(), rules, strict=False) == ["bias"]
    with pytest.raises(nnx.StructureError, match="leads to nowhere, which is not in the model"):
        names(linear(), rules)
