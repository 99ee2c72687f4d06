import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.recurrent import flip_sequences

X = jax.random.normal(jax.random.key(0), (2, 5, 3))
LENGTHS = jnp.array([3, 5])
close = np.testing.assert_allclose


def gru(**options):
    return nnx.GRUCell(3, 4, rngs=nnx.Rngs(0), **options)


def unrolled(cell, x):
    carry, outputs = cell.initialize_carry(x[:, 0].shape), []
    for t in range(x.shape[1]):
        carry, y = cell(carry, x[:, t])
        outputs.append(y)
    return carry, jnp.stack(outputs, axis=1)


@pytest.mark.parametrize("kind", [nnx.LSTMCell, nnx.GRUCell])
def test_it_equals_a_python_loop(kind):
    cell = kind(3, 4, rngs=nnx.Rngs(0))
    carry, outputs = unrolled(cell, X)
    found, y = nnx.RNN(cell, return_carry=True)(X)
    close(y, outputs, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: close(a, b, rtol=1e-5, atol=1e-6), found, carry)


def test_under_jit():
    layer = nnx.RNN(nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0)))
    close(nnx.jit(lambda layer, x: layer(x))(layer, X), layer(X), rtol=1e-5, atol=1e-6)


def test_a_carry_of_zeros_leaves_no_random_state():
    states = [v for _, v in nnx.iter_graph(nnx.RNN(gru())) if isinstance(v, nnx.RngState)]
    assert states == []
    drawn = nnx.RNN(gru(carry_init=nnx.initializers.normal()))
    assert drawn.rngs.tag == "carry"
    assert not (drawn(X) == drawn(X)).all()


def test_pickles_and_compares_by_value():
    layer, again = nnx.RNN(gru()), nnx.RNN(gru(kernel_init=nnx.initializers.normal()))
    assert nnx.graphdef(layer) == nnx.graphdef(again)
    copy = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(copy(X), layer(X))


def test_layouts():
    layer = nnx.RNN(gru())
    y = layer(X)
    close(layer(X.swapaxes(0, 1), time_major=True).swapaxes(0, 1), y, rtol=1e-5, atol=1e-6)
    close(layer(X[0]), y[0], rtol=1e-5, atol=1e-6)
    close(layer(X[None])[0], y, rtol=1e-5, atol=1e-6)


def test_the_last_carry_within_the_lengths():
    layer = nnx.RNN(gru(), return_carry=True)
    carry, outputs = layer(X, seq_lengths=LENGTHS)
    close(carry, outputs[jnp.arange(2), LENGTHS - 1], rtol=1e-6)
    padded = X.at[0, 3:].set(9.0)
    close(layer(padded, seq_lengths=LENGTHS)[0], carry, rtol=1e-6)
    start = jnp.full((2, 4), 0.5)
    empty, _ = layer(X, initial_carry=start, seq_lengths=jnp.array([0, 2]))
    np.testing.assert_array_equal(empty[0], start[0])  # no step was within the length
    several, _ = layer(X[None], seq_lengths=LENGTHS[None])
    close(several[0], carry, rtol=1e-5, atol=1e-6)


def test_reverse():
    layer = nnx.RNN(gru())
    close(layer(X, reverse=True), layer(X[:, ::-1]), rtol=1e-6)
    kept = layer(X, reverse=True, keep_order=True, seq_lengths=LENGTHS)
    close(kept[0, :3], layer(X[:1, :3][:, ::-1])[0, ::-1], rtol=1e-5, atol=1e-6)
    close(kept[1], layer(X[1:, ::-1])[0, ::-1], rtol=1e-5, atol=1e-6)


def test_initial_carry_and_streams():
    layer = nnx.RNN(gru())
    start = jnp.ones((2, 4))
    close(layer(X, initial_carry=start)[:, 0], layer.cell(start, X[:, 0])[1], rtol=1e-5)
    drawn = nnx.RNN(gru(carry_init=nnx.initializers.normal(1.0)))
    np.testing.assert_array_equal(drawn(X, rngs=nnx.Rngs(5)), drawn(X, rngs=nnx.Rngs(5)))
    stream = nnx.Rngs(5).default
    drawn(X, rngs=stream)
    assert int(stream.count[...]) == 1


def test_a_carry_of_another_dtype_than_the_step_returns():
    for options in (
        {"dtype": jnp.bfloat16},
        {"dtype": jnp.float32, "param_dtype": jnp.bfloat16},
    ):
        cell = nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0), **options)
        assert nnx.RNN(cell)(X).dtype == options["dtype"]


class DropoutCell(nnx.RNNCellBase):
    """A cell with random and other state: it counts its steps."""

    num_feature_axes = 1

    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.steps = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return jnp.zeros(input_shape)

    def __call__(self, carry, inputs):
        self.steps[...] += 1
        return carry, self.dropout(jnp.ones_like(inputs))


def test_state_goes_from_step_to_step():
    layer = nnx.RNN(DropoutCell(nnx.Rngs(0)))
    y = layer(X)
    assert int(layer.cell.steps[...]) == 5
    assert int(layer.cell.dropout.rngs.count[...]) == 5
    assert not (y == y[:, :1]).all()


def test_streams_that_draw_the_same_in_each_step():
    layer = nnx.RNN(DropoutCell(nnx.Rngs(0)), broadcast_rngs=True)
    x = jnp.ones((4, 5, 8))
    first, second = layer(x), layer(x)
    assert (first == first[:, :1]).all() and (second == second[:, :1]).all()
    assert not (first == second).all()
    assert int(layer.cell.dropout.rngs.count[...]) == 2
    other = nnx.RNN(DropoutCell(nnx.Rngs(0)), broadcast_rngs="noise")
    assert not (other(x) == other(x)[:, :1]).all()


def test_state_axes():
    axes = nnx.StateAxes({nnx.BatchStat: nnx.Carry, ...: None})
    layer = nnx.RNN(DropoutCell(nnx.Rngs(0)), state_axes=axes)
    layer.cell.dropout.eval()
    layer(X)
    assert int(layer.cell.steps[...]) == 5


def test_gradients_reach_the_cell():
    gradients = nnx.grad(lambda layer: layer(X, seq_lengths=LENGTHS, return_carry=True)[0].sum())(
        nnx.RNN(gru(), unroll=2)
    )
    assert all(bool(v[...].any()) for _, v in nnx.to_flat_state(gradients))


def test_flip_sequences():
    x = jnp.arange(10).reshape(2, 5, 1)
    np.testing.assert_array_equal(
        flip_sequences(x, None, 1, False)[..., 0], [[4, 3, 2, 1, 0], [9, 8, 7, 6, 5]]
    )
    expected = [[2, 1, 0, 4, 3], [9, 8, 7, 6, 5]]
    np.testing.assert_array_equal(flip_sequences(x, LENGTHS, 1, False)[..., 0], expected)
    turned = flip_sequences(x.swapaxes(0, 1), LENGTHS, 1, True)
    np.testing.assert_array_equal(turned[..., 0].T, expected)


def test_mistakes():
    layer = nnx.RNN(gru())
    with pytest.raises(ValueError, match=r"inputs of shape \(batch..., time, features\) .* \(3,\)"):
        layer(X[0, 0])
    for lengths, found in (
        (jnp.array([1, 2, 3]), r"int32 of shape \(3,\)"),
        (jnp.ones(2), "float32"),
    ):
        with pytest.raises(ValueError, match=rf"the batch's shape \(2,\), .* found {found}"):
            layer(X, seq_lengths=lengths)
    with pytest.raises(ValueError, match="seq_lengths as integers"):
        flip_sequences(X, jnp.array([1]), 1, False)
    with pytest.raises(TypeError, match="RNN takes `rngs` as"):
        nnx.RNN(gru(), rngs=3)
    with pytest.raises(ValueError, match="cannot draw its first carry"):
        nnx.RNN(gru(carry_init=nnx.initializers.normal()), rngs=False)(X)
    with pytest.raises(ValueError, match="RNN draws from the stream 'carry'"):
        layer(X, rngs=nnx.Rngs(params=0))
