"""Taps: which of the captures around a Module takes what it sows."""

import numpy as np
import pytest

import weft as nnx
from tests.module.blocks import NUDGES, SOWN, Model, X, paths, values


def test_values_go_to_the_nearest_of_the_types():
    class Special(nnx.Intermediate):
        pass

    class Sower(nnx.Module):
        def __call__(self, x):
            for kind in (nnx.Intermediate, Special, nnx.BatchStat):
                self.sow(kind, kind.__name__, x)
            return self.perturb("nudge", x)

    _, *states = nnx.capture(Sower(), nnx.Intermediate, Special, nnx.Perturbation)(X)
    assert [list(state) for state in states] == [["Intermediate"], ["Special"], ["nudge"]]
    _, sown = nnx.capture(Sower(), nnx.Variable)(X)
    assert list(sown) == ["BatchStat", "Intermediate", "Special"]


@pytest.mark.parametrize("kinds", [(), (nnx.Perturbation,), (nnx.Intermediate,)])
def test_types_that_are_not_asked_for_are_dropped(kinds):
    model = Model()
    result = nnx.capture(model, *kinds)(X)
    assert paths(model) == paths(Model())
    if not kinds:
        np.testing.assert_array_equal(result, [12.0, 12.0])
        return
    assert values(result[1]) == (NUDGES if kinds == (nnx.Perturbation,) else SOWN)


def test_captures_nest_and_the_inner_one_takes_what_it_asks_for():
    def both(model, x):
        return nnx.capture(model, nnx.Perturbation)(x)

    (_, nudges), sown = nnx.capture(both, nnx.Intermediate)(Model(), X)
    assert values(nudges) == NUDGES and values(sown) == SOWN


def test_what_is_captured_is_no_attribute():
    def forward(model, x):
        assert not hasattr(model.first, "__captures__")
        return model(x)

    nnx.capture(forward, nnx.Intermediate)(Model(), X)
