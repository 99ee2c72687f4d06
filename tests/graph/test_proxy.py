"""Calling models that are held as GraphDef and State."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Model(nnx.Module):
    def __init__(self):
        self.count = nnx.Variable(jnp.zeros(()))
        self.heads = {"a": nnx.Linear(2, 3, rngs=nnx.Rngs(0))}

    def __call__(self, x, *, by=1):
        self.count.value += by
        return self.heads["a"](x)

    def double(self, x):
        return 2 * x


X = jnp.ones((1, 2))


@pytest.fixture
def model():
    return Model()


def test_a_call_returns_the_output_and_the_new_state(model):
    graphdef, state = nnx.split(model)
    y, (after_def, after) = nnx.call((graphdef, state))(X, by=2)
    np.testing.assert_array_equal(y, model.heads["a"](X))
    assert float(after.count.value) == 2.0 and after_def == graphdef
    assert float(state.count.value) == 0.0 and float(model.count.value) == 0.0


def test_methods_attributes_and_items(model):
    pure = nnx.split(model)
    assert nnx.call(pure).double(3)[0] == 6
    np.testing.assert_array_equal(nnx.call(pure).heads["a"](X)[0], model.heads["a"](X))


@pytest.mark.parametrize("parts", [1, 2])
def test_apply_is_a_method_of_the_graphdef(model, parts):
    graphdef, *states = nnx.split(model, *([nnx.Param, ...] if parts == 2 else []))
    y, (_, state) = graphdef.apply(*states)(X)
    assert y.shape == (1, 3) and float(state.count.value) == 1.0


def test_a_proxy_works_inside_jit(model):
    @jax.jit
    def step(pure, x):
        return nnx.call(pure)(x)

    pure = nnx.split(model)
    for n in range(1, 3):
        _, pure = step(pure, X)
        assert float(pure[1].count.value) == n


def test_sharing_may_be_refused(model):
    model.twin = model.heads["a"]
    graphdef, state = nnx.split(model)
    with pytest.raises(nnx.SharedReferenceError):
        graphdef.apply(state, graph=False)(X)


def test_a_proxy_has_no_special_attributes(model):
    with pytest.raises(AttributeError, match="__wrapped__"):
        nnx.call(nnx.split(model)).__wrapped__  # noqa: B018
