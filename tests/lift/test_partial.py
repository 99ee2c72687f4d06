"""Binding leading arguments of functions of objects."""

import jax.numpy as jnp
import numpy as np

import weft as nnx


class Counter(nnx.Module):
    def __init__(self):
        self.count = nnx.Variable(jnp.zeros(()))


def add(counter, x, *, by=1.0):
    counter.count.value += by * x
    return counter.count.value


def test_bound_objects_are_updated():
    counter = Counter()
    step = nnx.cached_partial(nnx.jit(add), counter)
    assert [float(step(jnp.ones(()))) for _ in range(3)] == [1.0, 2.0, 3.0]
    assert float(counter.count.value) == 3.0


def test_bound_objects_may_change_between_calls():
    counter = Counter()
    step = nnx.cached_partial(nnx.jit(add), counter)
    step(jnp.ones(()))
    counter.extra = nnx.Param(1.0)
    counter.count.value = jnp.full((), 5.0)
    assert float(step(jnp.ones(()), by=2.0)) == 7.0


def test_arrays_and_several_arguments_may_be_bound():
    f = nnx.cached_partial(nnx.jit(lambda a, b, c: a + b * c), jnp.ones(2), jnp.full(2, 2.0))
    np.testing.assert_array_equal(f(jnp.full(2, 3.0)), [7.0, 7.0])


def test_jit_partial_takes_the_options_of_jit():
    counter = Counter()
    step = nnx.jit_partial(add, counter, static_argnames="by", graph_updates=True)
    assert float(step(jnp.ones(()), by=3)) == 3.0
    assert float(counter.count.value) == 3.0


def test_the_arguments_are_bound_for_all_stages_too():
    for make in (nnx.jit_partial, lambda f, *bound: nnx.cached_partial(nnx.jit(f), *bound)):
        counter, one = Counter(), jnp.ones(())
        step = make(add, counter)
        assert step.eval_shape(one).shape == ()
        assert "add" in str(step.trace(one).jaxpr)
        lowered = step.lower(one)
        assert "stablehlo" in lowered.as_text() and step.trace(one).lower().as_text()
        compiled = lowered.compile()
        assert compiled.cost_analysis() is not None
        assert [float(compiled(one)) for _ in range(2)] == [1.0, 2.0]
        assert float(step(one)) == 3.0 == float(counter.count.value)
        assert step.cache_info().traces >= 1
    assert not hasattr(nnx.cached_partial(add, counter), "lower")
    assert not hasattr(compiled, "__dlpack__")
