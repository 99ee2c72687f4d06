"""What is known of logits after some blocks; the losses are tried in test_cross_entropy.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft.nn import vocabulary_blocks
from weft.nn.vocabulary_blocks import Operands, Settings


def settings_of(block, transposed=False):
    dtype = jnp.dtype(jnp.float32)
    return Settings(0.1, 0.0, None, transposed, dtype, dtype, None, 1, block, None)


@pytest.mark.parametrize("block, count", [(1, 7), (3, 3), (4, 2), (7, 1), (9, 1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_blocks_are_summed_up(block, count, transposed):
    hidden, kernel = jax.random.normal(jax.random.key(0), (2, 7, 7))
    hidden, kernel, bias = hidden[:, :2], kernel[:2], jnp.arange(7.0).at[2].set(-10.0)
    logits = hidden @ kernel + bias
    labels = jnp.arange(7)
    settings = settings_of(block, transposed)
    operands = Operands(hidden, kernel.T if transposed else kernel, bias)
    found, at = vocabulary_blocks.blocks_of(operands, settings)
    assert found == count
    known = vocabulary_blocks.no_block(labels, (hidden,), settings)
    for i in range(count):
        part = vocabulary_blocks.logits_of(hidden, at(i), settings)
        known = vocabulary_blocks.with_block(known, part, labels, at(i), settings)
    np.testing.assert_allclose(known.largest, logits.max(-1), rtol=1e-5)
    sums = jax.nn.logsumexp(logits, -1)
    np.testing.assert_allclose(known.largest + jnp.log(known.exponentials), sums, rtol=1e-5)
    np.testing.assert_allclose(known.label, jnp.diagonal(logits), rtol=1e-4)
    np.testing.assert_allclose(known.total, logits.sum(-1), rtol=1e-4)


def test_outside_of_mapped_axes_nothing_varies():
    x = jnp.ones(2)
    assert vocabulary_blocks.axes_of(x, None) == frozenset()
    assert vocabulary_blocks.varying_as(x, x) is x
    assert vocabulary_blocks.varying(None, frozenset({"data"})) is None
