import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


def test_causal_mask():
    mask = nnx.make_causal_mask(jnp.ones((2, 3)), extra_batch_dims=1, dtype=bool)
    assert mask.shape == (1, 2, 1, 3, 3)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask[0, 1, 0], np.tril(np.ones((3, 3))))


def test_attention_mask():
    mask = nnx.make_attention_mask(jnp.array([[1, 2]]), jnp.array([[3, 0, 1]]), jnp.greater_equal)
    assert mask.shape == (1, 1, 2, 3)
    assert mask.dtype == jnp.float32
    np.testing.assert_array_equal(mask[0, 0], [[0, 1, 1], [0, 1, 1]])


def test_combined_masks_let_through_what_all_do():
    a, b = jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[True], [False]])
    combined = nnx.combine_masks(a, None, b, dtype=bool)
    np.testing.assert_array_equal(combined, [[True, True, False], [False, False, False]])
    assert nnx.combine_masks(None, None) is None
    np.testing.assert_array_equal(nnx.combine_masks(a), a)


def test_masks_of_several_ranks():
    with pytest.raises(ValueError, match=r"masks of one rank, found shapes \[\(3,\), \(1, 3\)\]"):
        nnx.combine_masks(jnp.ones(3), jnp.ones((1, 3)))
