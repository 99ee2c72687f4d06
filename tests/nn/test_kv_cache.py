import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.kv_cache import combine_step_mask, extend_cache


def cache(max_length=4, dtype=jnp.float32):
    arrays = [nnx.Cache(jnp.zeros((2, max_length, 1, 3), dtype)) for _ in range(2)]
    return (*arrays, nnx.Cache(jnp.zeros((), jnp.int32)))


def extend(variables, new, num_queries=None):
    return extend_cache(
        *variables,
        new,
        -new,
        num_queries=new.shape[1] if num_queries is None else num_queries,
        remedy=lambda shape: f"init{shape}",
    )


NEW = jax.random.normal(jax.random.key(0), (2, 4, 1, 3))


def test_steps_of_any_length_fill_the_cache():
    variables = cache()
    first = extend(variables, NEW[:, :2])
    np.testing.assert_array_equal(first.positions, [0, 1])
    np.testing.assert_array_equal(first.visible[1, 0], [[1, 0, 0, 0], [1, 1, 0, 0]])
    second = extend(variables, NEW[:, 2:3])
    np.testing.assert_array_equal(second.positions, [2])
    np.testing.assert_array_equal(second.visible[0, 0], [[1, 1, 1, 0]])
    np.testing.assert_array_equal(second.key[:, :3], NEW[:, :3])
    np.testing.assert_array_equal(second.value, -second.key)
    assert int(variables[2][...]) == 3


def test_the_cache_may_be_of_lower_precision():
    variables = cache(dtype=jnp.bfloat16)
    step = extend(variables, NEW[:, :1])
    assert variables[0].dtype == jnp.bfloat16
    assert step.key.dtype == jnp.float32
    np.testing.assert_array_equal(step.key[:, 0], NEW[:, 0].astype(jnp.bfloat16))


def test_a_mask_restricts_what_is_visible():
    visible = extend(cache(), NEW[:, :2]).visible
    mask = jnp.array([0.0, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(
        combine_step_mask(mask, visible)[0, 0], [[0, 0, 0, 0], [0, 1, 0, 0]]
    )
    for shape in ((2, 4), (1, 4), (2, 1, 1, 1), (2, 5, 2, 4)):
        assert combine_step_mask(jnp.ones(shape, bool), visible).shape[-2:] == (2, 4)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3), (1, 1, 4, 4), (5,)])
def test_a_mask_that_does_not_speak_of_the_step(shape):
    visible = extend(cache(), NEW[:, :2]).visible
    with pytest.raises(ValueError, match=r"must broadcast to \(batch..., heads, 2, 4\), .* found"):
        combine_step_mask(jnp.ones(shape, bool), visible)


def test_shapes_that_do_not_fit():
    message = r"takes keys of shape \(2, 1, 1, 3\), .* found keys of shape \(1, 1, 1, 3\): make a "
    with pytest.raises(ValueError, match=message + r"cache for this batch, `init\(1, 4\)`"):
        extend(cache(), NEW[:1, :1])
    with pytest.raises(ValueError, match="as many as there are queries"):
        extend(cache(), NEW[:, :2], num_queries=1)


def test_a_full_cache():
    variables = cache(max_length=3)
    extend(variables, NEW[:, :2])
    before = variables[0][...]
    with pytest.raises(
        ValueError, match=r"full: 2 more .* after 2 of max_length=3: .* `init\(2, 3"
    ):
        extend(variables, NEW[:, :2])
    assert variables[0][...] is before
    with pytest.raises(
        ValueError, match=r"4 more .* after 0 of max_length=3"
    ):  # seen without values
        nnx.jit(lambda v: extend(v, NEW).key)(cache(max_length=3))
