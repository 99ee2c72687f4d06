import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 5, 3))
LENGTHS = jnp.array([3, 5])


def parts(**options):
    return [nnx.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(seed), **options)) for seed in (0, 1)]


def test_outputs_of_both_directions_stand_at_their_inputs():
    forward, backward = parts()
    y = nnx.Bidirectional(forward, backward)(X, seq_lengths=LENGTHS)
    np.testing.assert_array_equal(y[..., :4], forward(X))
    np.testing.assert_allclose(y[1, ::-1, 4:], backward(X[1, ::-1]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y[0, 2::-1, 4:], backward(X[0, 2::-1]), rtol=1e-5, atol=1e-6)


def test_padding_does_not_count():
    layer = nnx.Bidirectional(*parts())
    y = layer(X, seq_lengths=LENGTHS)
    padded = layer(X.at[0, 3:].set(9.0), seq_lengths=LENGTHS)
    np.testing.assert_array_equal(y[0, :3], padded[0, :3])


def test_options():
    layer = nnx.Bidirectional(*parts(), merge_fn=jnp.add, return_carry=True)
    (forward, backward), y = layer(X)
    assert y.shape == (2, 5, 4) and forward.shape == backward.shape == (2, 4)
    turned = layer(X.swapaxes(0, 1), time_major=True, return_carry=False)
    np.testing.assert_allclose(turned.swapaxes(0, 1), y, rtol=1e-5, atol=1e-6)
    start = jnp.ones((2, 4))
    assert not np.allclose(layer(X, initial_carry=(start, 0 * start))[1], y)


def test_streams():
    assert nnx.Bidirectional(*parts()).rngs is None  # a carry of zeros draws nothing
    layer = nnx.Bidirectional(*parts(carry_init=nnx.initializers.normal(1.0)))
    assert not (layer(X) == layer(X)).all()
    assert int(layer.rngs.count[...]) == 4
    np.testing.assert_array_equal(layer(X, rngs=nnx.Rngs(3)), layer(X, rngs=nnx.Rngs(3).default))


def test_it_fits_into_itself():
    inner = nnx.Bidirectional(*parts())
    assert isinstance(inner, nnx.nn.bidirectional.RNNBase)
    assert nnx.jit(lambda layer, x: layer(x))(inner, X).shape == (2, 5, 8)


def test_there_is_nothing_to_reverse():
    with pytest.raises(ValueError, match="`reverse=True` has no meaning: swap the two layers"):
        nnx.Bidirectional(*parts())(X, reverse=True)
