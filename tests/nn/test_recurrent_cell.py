import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from weft.nn.recurrent_cell import HiddenStateCell, carry_stream, modified_orthogonal


def test_orthogonal_in_low_precision():
    key = jax.random.key(0)
    kernel = modified_orthogonal(key, (4, 4))
    np.testing.assert_array_equal(kernel, nnx.initializers.orthogonal()(key, (4, 4)))
    assert modified_orthogonal(key, (4, 4), jnp.bfloat16).dtype == jnp.bfloat16


def cell(**options):
    return nnx.GRUCell(3, 4, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("kind", [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell])
def test_a_carry_of_zeros_needs_no_stream(kind):
    made = kind(3, 4, dtype=None, param_dtype=jnp.float16, rngs=nnx.Rngs(0))
    for part in jax.tree.leaves(made.initialize_carry((2, 3))):
        np.testing.assert_array_equal(part, np.zeros((2, 4)))
        assert part.dtype == jnp.float16
    assert not nnx.state(nnx.RNN(made), nnx.RngState)


def test_a_given_stream_goes_on_alike_for_every_initializer():
    rngs = nnx.Rngs(carry=1)
    cell().initialize_carry((2, 3), rngs)
    assert int(rngs.carry.count[...]) == 1


def test_a_drawn_carry():
    normal = nnx.initializers.normal(1.0)
    key = nnx.Rngs(carry=1).carry()
    expected = normal(key, (2, 4), jnp.float32)
    np.testing.assert_array_equal(
        cell(carry_init=normal).initialize_carry((2, 3), nnx.Rngs(carry=1)), expected
    )
    np.testing.assert_array_equal(
        cell().initialize_carry((2, 3), nnx.Rngs(carry=1).carry, normal), expected
    )
    kept = cell(carry_init=normal, keep_rngs=True)
    assert kept.draws_carry and not cell().draws_carry
    assert not (kept.initialize_carry((2, 3)) == kept.initialize_carry((2, 3))).all()


def test_a_drawn_carry_without_a_stream():
    with pytest.raises(ValueError, match="GRUCell cannot draw its first carry") as error:
        cell(carry_init=nnx.initializers.normal()).initialize_carry((2, 3))
    assert "`rnn(x, rngs=rngs)`" in str(error.value)


def test_the_stream_of_a_layer():
    assert carry_stream(True, "Layer", needed=False) is None
    assert carry_stream(False, "Layer", needed=True) is None
    assert carry_stream(None, "Layer", needed=True) is None
    first, again = (carry_stream(True, "Layer", needed=True) for _ in range(2))
    assert first.tag == "carry" and first() == again()
    assert carry_stream(nnx.Rngs(3), "Layer", needed=False)() == nnx.Rngs(3).default.fork()()
    with pytest.raises(TypeError, match="Layer takes `rngs` as"):
        carry_stream(3, "Layer", needed=True)


def test_the_interface():
    base = nnx.RNNCellBase()
    assert base.draws_carry
    assert isinstance(cell(), HiddenStateCell) and cell().num_feature_axes == 1
    for call, name in (
        (lambda: base.initialize_carry((1,)), "initialize_carry"),
        (lambda: base(0, 0), "__call__"),
        (lambda: base.num_feature_axes, "num_feature_axes"),
    ):
        with pytest.raises(NotImplementedError, match=f"RNNCellBase does not define {name}"):
            call()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kind", [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell])
def test_a_cell_stays_in_its_dtype(kind, dtype):
    cell = kind(3, 4, dtype=dtype, rngs=nnx.Rngs(0))
    first = cell.initialize_carry((2, 3))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), first)
    for carry in (first, wide):
        for x in (jnp.ones((2, 3)), jnp.ones((2, 3), dtype)):
            assert {leaf.dtype for leaf in jax.tree.leaves(cell(carry, x))} == {jnp.dtype(dtype)}
    jax.lax.scan(cell, first, jnp.ones((5, 2, 3)))  # a loop takes no carry of another dtype
    x, options = jnp.ones((2, 5, 3), dtype), {"return_carry": True}
    outputs = nnx.RNN(cell)(x, **options), nnx.RNN(cell)(x, initial_carry=wide, **options)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype(dtype)}
