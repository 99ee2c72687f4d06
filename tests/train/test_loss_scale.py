"""LossScale: how the factor grows and shrinks."""

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft import train


def test_it_grows_after_good_steps_and_shrinks_at_once():
    scale = train.LossScale(4.0, interval=2)
    seen = []
    for good in (True, True, True, False, False, False, False, True, True):
        scale.adjust(good)
        seen.append((float(scale.value[...]), int(scale.good_steps[...])))
    assert seen == [(4, 1), (8, 0), (8, 1), (4, 0), (2, 0), (1, 0), (1, 0), (1, 1), (2, 0)]


def test_it_stays_finite_and_may_stay_as_it_is():
    scale = train.LossScale(3e38, interval=1)
    scale.adjust(True)
    assert float(scale.value[...]) == float(jnp.float32(3e38))
    scale = train.LossScale(8.0, interval=None)
    for good in (True, False):
        scale.adjust(good)
    assert float(scale.value[...]) == 8


def test_scaling_and_back():
    scale = train.LossScale(1024.0)
    loss = scale.scale(jnp.float16(2))
    assert loss.dtype == jnp.float32 and float(loss) == 2048
    grads = scale.unscale({"half": jnp.full(2, 1024, jnp.float16), "whole": jnp.ones(1)})
    assert {name: x.dtype.name for name, x in grads.items()} == dict.fromkeys(grads, "float32")
    np.testing.assert_array_equal(grads["half"], [1, 1])


def test_under_jit_it_is_one_trace():
    scale = train.LossScale(4.0)
    adjust = nnx.jit(lambda scale, good: scale.adjust(good), max_traces=1)
    for good in (True, False, True):
        adjust(scale, jnp.bool_(good))
    assert float(scale.value[...]) == 2


@pytest.mark.parametrize("options", [{"initial": 0.5}, {"interval": 0}, {"factor": 1.0}])
def test_what_is_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be .*, found .*: try {name}="):
        train.LossScale(**options)
