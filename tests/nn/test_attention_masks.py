import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.attention_masks import visible_in


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


def test_what_is_visible_in_a_mask():
    expected = [True, False, True]
    for mask in (jnp.array(expected), jnp.array([1, 0, 2]), jnp.array([1.0, 0.0, 0.5])):
        for read in (visible_in, jax.jit(visible_in)):
            assert read(mask).dtype == bool and read(mask).tolist() == expected
    additive = jnp.array([0.0, -jnp.inf, 0.0])
    assert jax.jit(visible_in)(additive).tolist() == expected
    for call in (
        lambda: visible_in(additive),
        lambda: visible_in(np.array([0, -1, 0])),
        lambda: visible_in(nnx.Variable(additive)),
        jax.jit(lambda: visible_in(additive)),
        lambda: nnx.combine_masks(jnp.ones(3), additive),
    ):
        with pytest.raises(ValueError, match=r"negative .* `bias=mask`; .* `mask=mask == 0`"):
            call()


def test_additive_masks_never_say_the_contrary():
    """In all layers: an error, or under jit what was meant."""
    x = jax.random.normal(jax.random.key(0), (1, 3, 8))
    layer = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
    mask = nnx.make_causal_mask(jnp.ones((1, 3)))
    additive = jnp.where(mask == 0, -jnp.inf, 0.0)
    with pytest.raises(ValueError, match="additive"):
        layer(x, mask=additive)
    call = nnx.jit(lambda layer, x, mask: layer(x, mask=mask))
    np.testing.assert_allclose(call(layer, x, additive), layer(x, mask=mask), atol=1e-6)
    layer.init_cache((1, 3, 8))
    with pytest.raises(ValueError, match="additive"):
        layer(x, mask=additive, decode=True)
