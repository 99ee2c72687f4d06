"""How tokens are cut into chunks; the losses are tried in test_cross_entropy.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weft.nn import chunked_logits
from weft.nn.vocabulary_blocks import Operands, Settings


@pytest.mark.parametrize(
    "tokens, size, expected",
    [
        ((16384,), 1024, 16),
        ((10, 1000), 1024, 10),
        ((1024,), 1024, 1),
        ((1025,), 1024, 2),  # nothing from 2 to 4 divides it: padded
        ((7,), 2, 7),
        ((100, 3), 10, 30),
    ],
)
def test_number_of_chunks(tokens, size, expected):
    assert chunked_logits.number_of_chunks(tokens, size) == expected


@pytest.mark.parametrize("tokens", [(12,), (2, 6), (2, 7), (3, 2), (1, 1, 5)])
@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_chunks_are_joined_again(tokens, chunks):
    x = jnp.arange(np.prod(tokens) * 3).reshape(*tokens, 3)
    cut = chunked_logits._split(x, tokens, chunks)
    assert cut.shape[0] == chunks
    joined = chunked_logits._join(cut, tokens, cut.ndim - 2)
    np.testing.assert_array_equal(joined, x)


def test_each_device_has_a_part_of_each_chunk():
    cut = chunked_logits._split(jnp.arange(8), (8,), 2)
    assert cut.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_one_chunk_keeps_its_logits():
    def kept(chunks):
        settings = Settings(0.0, 0.0, None, False, jnp.float32, jnp.float32, None, chunks, 5, None)
        given = Operands(jnp.ones((8, 3)), jnp.ones((3, 5)), None)
        _, pull_back = jax.vjp(
            lambda given: chunked_logits.each(settings, given, jnp.zeros(8, jnp.int32)), given
        )
        return {x.shape for x in jax.tree.leaves(pull_back)}

    assert (1, 8, 5) in kept(1)
    assert not any(5 == shape[-1] and len(shape) > 2 for shape in kept(2) if shape)
