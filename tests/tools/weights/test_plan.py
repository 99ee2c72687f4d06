"""All links between a source and a model, and everything that does not fit."""

import jax.numpy as jnp
import numpy as np

import weft as nnx
from weft.tools.weights.layout import Layout
from weft.tools.weights.plan import Planner
from weft.tools.weights.rules import parse_rules
from weft.tools.weights.source import Aval

from .models import net

MODEL = {"a": nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "b": nnx.Linear(2, 3, rngs=nnx.Rngs(0))}
SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (3, 2), "b.bias": (3,)}


def plan(shapes, rules=None, model=MODEL, **options):
    avals = {
        name: shape if isinstance(shape, Aval) else Aval(shape, np.dtype(np.float32))
        for name, shape in shapes.items()
    }
    return Planner(Layout(model), avals, parse_rules(rules), **options).plan()


def rows(found, kind):
    return [(row.source, row.target, row.note) for row in found.rows if row.kind == kind]


def without(*names):
    return {name: shape for name, shape in SHAPES.items() if name not in names}


def test_all_that_matches():
    found = plan(SHAPES)
    assert {row.kind for row in found.rows} == {"matched"}
    assert rows(found, "matched")[0] == ("a.weight", "a.kernel", "axes (1, 0)")


def test_missing_and_unexpected_with_near_names():
    found = plan({**without("b.bias"), "b.bais": (3,), "zz": (1,)})
    note = "expected as 'b.bias'; did you mean 'b.bais'?"
    assert rows(found, "missing") == [("", "b.bias", note)]
    assert rows(found, "unexpected") == [("b.bais", "", "did you mean 'b.bias'?"), ("zz", "", "")]


def test_shapes_that_do_not_fit():
    found = plan({**SHAPES, "a.weight": (2, 3), "b.bias": (2, 3)})
    assert rows(found, "mis-shaped") == [
        (
            "a.weight",
            "a.kernel",
            "expected 3, 2, for 2, 3 in the model, found 2, 3 (they make shape (3, 2))",
        ),
        (
            "b.bias",
            "b.bias",
            "expected 3, for 3 in the model, found 2, 3 (they make shape (2, 3))",
        ),
    ]
    assert not rows(found, "missing")


def test_shapes_that_do_not_fit_a_function():
    into = nnx.Into("a.kernel", load=lambda x: x[0])
    found = plan({**without("a.weight"), "w": (1, 4, 2)}, {"w": into})
    assert rows(found, "mis-shaped")[0][2] == (
        "found 1, 4, 2 (they make shape (2, 4)), for 2, 3 in the model"
    )


def test_kinds_of_dtypes():
    found = plan({**SHAPES, "a.bias": Aval((3,), np.dtype(np.int32))})
    assert rows(found, "mis-shaped")[0][2] == (
        "expected float32, which numbers of another kind do not become"
    )
    half = {**SHAPES, "a.bias": Aval((3,), np.dtype(jnp.bfloat16))}
    assert plan(half).rows[1].dtype == "bfloat16 → float32"
    assert plan(half, dtype=jnp.bfloat16).rows[1].dtype == "bfloat16"


def test_rules():
    named = {name.replace("b.", "other."): shape for name, shape in SHAPES.items()}
    found = plan({**named, "x": (1,)}, {"other": "b", "x": None})
    assert rows(found, "ignored") == [("x", "", "")]
    assert ("other.bias", "b.bias", "as is") in rows(found, "matched")


def test_the_first_rule_counts():
    found = plan({**SHAPES, "b.mask": (1,)}, {"b.mask": None, "b": "b"})
    assert rows(found, "ignored") == [("b.mask", "", "")] and not rows(found, "unexpected")


def test_what_is_left_alone():
    found = plan(without("b.bias", "b.weight"), {None: "b"})
    assert {row.kind for row in found.rows} == {"matched"}


def test_what_layers_ignore():
    shapes = {"body.1.num_batches_tracked": (), "x.num_batches_tracked": ()}
    found = plan(shapes, {"x": "body.layers[1]"}, net())
    assert [row[0] for row in rows(found, "ignored")] == list(shapes)


def test_a_rule_that_matches_nothing():
    found = plan(SHAPES, {"a.wieght": "a.kernel"})
    note = "the rule matches no name; did you mean 'a.weight' or 'b.weight'?"
    assert rows(found, "wrong") == [("a.wieght", "a.kernel", note)]


def test_a_path_that_is_not_there():
    start = "by the rule 'b' it goes to "
    for target, note in {
        "bb.x": f"{start}bb.x, which is not in the model",
        "a.kernle": f"{start}a.kernle, which is not in the model; did you mean 'a.kernel' or ",
        "a": f"{start}a, which is an object: name an array in it, as in `a.bias`",
    }.items():
        found = plan({**without("b.weight", "b.bias"), "b": (3,)}, {"b": target})
        assert rows(found, "unexpected")[0][2].startswith(note)
    found = plan({**SHAPES, "b.gain": (3,)}, {"b": "b"})
    assert rows(found, "unexpected") == [
        ("b.gain", "", f"{start}b, which has no 'gain'; leave it out by a rule to None")
    ]


def test_arrays_that_lack_others():
    rule = {("q", "k"): "a"}
    found = plan({"q.weight": (1, 2), "q.bias": (1,), "k.bias": (2,)}, rule, {"a": MODEL["a"]})
    note = "needs k as well, which the source does not have"
    assert rows(found, "wrong") == [("q.weight", "a.kernel", note)]
    cell = nnx.OptimizedLSTMCell(2, 1, rngs=nnx.Rngs(0))
    found = plan({"bias_hh": (4,)}, model=cell)
    assert rows(found, "wrong")[0][2] == "needs bias_ih as well, which the source does not have"


def test_two_names_for_one_weight():
    found = plan({**SHAPES, "c": (3,)}, {"c": "b.bias"})
    assert [[link.sources, other.sources] for link, other, _ in found.twice] == [
        [["b.bias"], ["c"]]
    ]
    found = plan(
        {"x.bias_ih": (4,), "y.bias_ih": (4,)},
        {"{n}": ""},
        nnx.OptimizedLSTMCell(2, 1, rngs=nnx.Rngs(0)),
    )
    assert len(rows(found, "wrong")) == 2


def test_a_rule_that_joins_what_a_layer_joins():
    cell = nnx.OptimizedLSTMCell(2, 1, rngs=nnx.Rngs(0))
    found = plan({"x.bias_ih": (4,), "y.bias_ih": (4,)}, {("x", "y"): ""}, cell)
    assert rows(found, "wrong")[0][2] == (
        "the layer joins 2 arrays there, and the rule ('x', 'y') does as well: write a rule for "
        "each weight"
    )
