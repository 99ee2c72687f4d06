"""The running trace, under the name that code of the NNX API imports it from."""

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest
from weft.pytreelib import PytreeState
from weft.tracers import TraceState, current_jax_trace


def test_a_trace_is_valid_while_it_runs():
    outside = TraceState()
    assert outside.is_valid() and outside == TraceState() and outside != 3

    def inside(x):
        assert not outside.is_valid() and outside != TraceState()
        assert TraceState().jax_trace == current_jax_trace()
        assert copy.copy(outside).is_valid(), "a copy belongs to the trace that makes it"
        return x

    jax.vmap(inside)(jnp.ones(2))
    assert pickle.loads(pickle.dumps(outside)) == outside
    assert jax.tree.leaves(outside) == [] and jax.tree.map(abs, outside) == outside
    assert repr(outside).startswith("TraceState(jax_trace=")
    with pytest.raises(TypeError, match="unhashable"):
        hash(outside)


def test_the_state_of_an_object():
    state = PytreeState(initializing=True)
    assert (state.initializing, state.is_setup, state.trace_state.is_valid()) == (True, False, True)
