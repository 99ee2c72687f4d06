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


def test_a_function_may_make_floats_of_integers():
    into = nnx.Into("a.weight", load=lambda q, s: q * s)
    quantised = {"q": Aval((3, 2), np.dtype(np.int8)), "s": (3, 1)}
    assert not rows(plan({**without("a.weight"), **quantised}, {("q", "s"): into}), "mis-shaped")
    into = nnx.Into("a.weight", load=lambda x: x.astype(np.int32))
    found = plan(SHAPES, {"a.weight": into})
    assert rows(found, "mis-shaped")[0][2] == (
        "the rule makes int32, expected float32, which numbers of another kind do not become"
    )


def test_missing_weights_have_the_names_of_the_rules():
    rules = {"h.{i}.fc": "blocks[{i}].up", ("x", "y"): "scale", "{n}.head": "heads[0]", "z": "no"}
    found = {target: note for _, target, note in rows(plan({}, rules, net()), "missing")}
    assert found["blocks[1].up.kernel"] == "expected as 'h.1.fc.weight'"
    assert found["scale"] == "expected as '{x, y}'"
    assert found["heads[0].kernel"] == "expected as 'heads.0.weight'"
    assert found["body.layers[1].scale"] == "expected as 'body.1.weight'"
    found = plan({"h.0.fc.wieght": (3, 2), "h.1.fd.weight": (3, 2)}, rules, net())
    first, second = rows(found, "unexpected")
    assert first[2] == (
        "by the rule 'h.{i}.fc' it goes to blocks[0].up, which has no 'wieght'; did you mean "
        "'weight'? Or leave it out by a rule to None"
    )
    assert second[2].startswith("did you mean 'h.1.fc.weight'")


def test_rules_that_lead_beyond_the_last_layer():
    note = "by the rule 'h.{i}' it goes to blocks[2].up.kernel, and blocks has 2: make the model "
    found = plan({"h.2": (2, 3)}, {"h.{i}": "blocks[{i}].up.kernel"}, net())
    assert rows(found, "unexpected")[0][2].startswith(note)


def test_names_of_weft():
    for names in (["a.kernel", "b.kernel"], ["model.a.kernel", "model.b.kernel"]):
        found = plan({**dict.fromkeys(names, (2, 3)), "a.bias": (3,), "b.bias": (3,)})
        assert rows(found, "unexpected")[0] == (
            names[0],
            "",
            "a name of Weft's own: `nnx.restore(file, model=model)` reads what `nnx.save` wrote, "
            "`nnx.update` takes a State",
        )


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


def test_a_rule_that_would_match_names():
    def unused(shapes, rules):
        return rows(plan(shapes, rules), "wrong")[-1][2]

    assert unused(SHAPES, {"a": "b", "a.weight": "a.kernel"}) == (
        "the rule matches no name that is left: 'a.weight' goes by the rule 'a' before it, and the "
        "first that matches counts; put the one that says more before the other"
    )
    prefixed = {f"model.net.{name}": shape for name, shape in SHAPES.items()}
    assert unused(prefixed, {"{n}.weight": "a.kernel", "a.bias": "a.bias"}) == (
        "the rule matches no name; 'model.net.a.bias' begins with 'model.net.': write "
        "`model.net.a.bias`"
    )
    assert unused(SHAPES, {"h.*.fc": "a"}).endswith("; write `{i}` for what differs, not `*`")


def test_a_rule_for_what_is_tied_needs_no_name():
    shapes = {"tied.weight": (2, 3), "tied.bias": (2,)}
    assert not rows(plan(shapes, {"a": "heads[0]"}, net()), "wrong")
    assert rows(plan(shapes, {"a": "tied"}, net()), "wrong")
    assert rows(plan(shapes, {"a": "heads"}, net()), "wrong") == []
    assert rows(plan(shapes, {"a": "nowhere"}, net()), "wrong")


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
