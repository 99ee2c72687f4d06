"""The functions with `graph=True` and `graph_updates=True` as defaults."""

import inspect

import jax.numpy as jnp
import pytest

import weft as nnx
from weft import compat


class Model(nnx.Module):
    def __init__(self):
        self.layer = self.again = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        self.seen = nnx.Variable(x)
        return self.layer(x)


@pytest.mark.parametrize("name", compat._OPTIONS)
def test_every_function_is_the_one_of_weft_with_other_defaults(name):
    function, original = getattr(compat, name), getattr(nnx, name)
    assert function.__wrapped__ is original and function.__doc__ == original.__doc__
    theirs = inspect.signature(original).parameters
    for option, parameter in inspect.signature(function).parameters.items():
        expected = True if option in compat._OPTIONS[name] else theirs[option].default
        assert parameter.default is expected or parameter.default == expected


def test_settings_do_not_count():
    model = Model()
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        with pytest.raises(nnx.SharedReferenceError):
            nnx.split(model)
        graphdef, state = compat.split(model)
        compat.jit(lambda m, x: m(x))(model, jnp.ones((1, 2)))
    assert len(nnx.to_flat_state(state)) == 2 and graphdef.num_leaves == 2
    assert model.seen.value.shape == (1, 2)


def test_options_may_still_be_given():
    with pytest.raises(nnx.SharedReferenceError):
        compat.graphdef(Model(), graph=False)
