"""Arrays of a file as weights, and back."""

import numpy as np
import pytest

import weft as nnx
from weft.tools.weights.layout import Layout
from weft.tools.weights.links import Link
from weft.tools.weights.rules import parse_rules

from .models import array

MODEL = {
    "a": nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0)),
    "b": nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0)),
    "ab": nnx.Linear(2, 4, use_bias=False, rngs=nnx.Rngs(0)),
    "cell": nnx.OptimizedLSTMCell(2, 1, rngs=nnx.Rngs(0)),
}
LAYOUT = Layout(MODEL)


def link(sources, target):
    rule = parse_rules([(sources, target)])[0]
    paths = [tuple(pattern.text.split(".")) for pattern in rule.targets]
    entries = tuple([LAYOUT.entry_at(path) for path in paths])
    return Link([pattern.text for pattern in rule.sources], entries, rule)


def round_trip(made, arrays):
    weights = made.load(arrays)
    back = made.save(weights)
    assert [x.tolist() for x in back] == [x.tolist() for x in arrays]
    assert made.expected() == [x.shape for x in arrays]
    return weights


def test_one():
    made = link("w", "a.kernel")
    assert made.how() == "axes (1, 0)"
    (kernel,) = round_trip(made, [array(3, 2)])
    assert (kernel == array(3, 2).T).all()


def test_one_that_is_as_here():
    made = link("w", nnx.Into("a.kernel", axes=(1, 0)))
    assert made.how() == "as is"
    (kernel,) = round_trip(made, [array(2, 3)])
    assert (kernel == array(2, 3)).all()


def test_split():
    made = link("w", ("a.kernel", "b.kernel"))
    assert made.how() == "split, transposed"
    a, b = round_trip(made, [array(4, 2)])
    assert (a == array(4, 2)[:3].T).all() and (b == array(4, 2)[3:].T).all()


def test_joined():
    made = link(("v", "w"), nnx.Into("ab.kernel", sizes=(1, 3)))
    assert made.how() == "joined, transposed"
    (kernel,) = round_trip(made, [array(1, 2), array(3, 2, start=2)])
    assert (kernel == array(4, 2).T).all()
    round_trip(link(("v", "w"), "ab.kernel"), [array(2, 2), array(2, 2)])
    along = link(("v", "w"), nnx.Into("ab.kernel", axes=(1, 0), axis=1))
    round_trip(along, [array(1, 4), array(1, 4)])


def test_functions():
    made = link("w", nnx.Into("a.kernel", load=lambda x: 2 * x, save=lambda x: x / 2))
    assert made.how() == "converted"
    (kernel,) = round_trip(made, [array(3, 2)])
    assert kernel[0, 1] == 4


def test_two_arrays_of_a_layer():
    entry = LAYOUT.entries["cell.bias_ih"]
    made = Link(["x", "y"], (entry,))
    (bias,) = made.load([array(4), array(4)])
    assert bias.tolist() == [0, 2, 4, 6]
    assert [x.tolist() for x in made.save([bias])] == [[0, 2, 4, 6], [0, 0, 0, 0]]
    assert made.how() == "joined, converted"


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"they make shape \(3, 2\)"):
        link("w", "a.kernel").load([array(2, 3)])
    with pytest.raises(ValueError, match=r"axis 0 is not as long as its parts \(3, 1\) together"):
        link("w", ("a.kernel", "b.kernel")).load([array(5, 2)])
    with pytest.raises(ValueError, match=r"along axis 0 they are \(3, 1\) long, by the rule \(1, "):
        link(("v", "w"), nnx.Into("ab.kernel", sizes=(1, 3))).load([array(3, 2), array(1, 2)])


def test_what_cannot_be_saved():
    weights = [np.zeros((2, 4), np.float32)]
    with pytest.raises(
        ValueError, match=r"axis 0, 4 long, cannot be split into 3 arrays alike: sa"
    ):
        link(("u", "v", "w"), "ab.kernel").save(weights)
    with pytest.raises(ValueError, match=r"cannot be split into 2 arrays of sizes \(1, 2\)"):
        link(("v", "w"), nnx.Into("ab.kernel", sizes=(1, 2))).save(weights)
    with pytest.raises(ValueError, match="the rule has no `save`"):
        link("w", nnx.Into("ab.kernel", load=abs)).save(weights)
    assert link("w", nnx.Into("ab.kernel", load=abs)).expected() is None
    odd = link(("v", "w"), nnx.Into("ab.kernel", load=abs, save=abs))
    with pytest.raises(ValueError, match="`save` of the rule returns 1 arrays, expected 2"):
        odd.save(weights)
