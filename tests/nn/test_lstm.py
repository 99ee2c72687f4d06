import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 3))
CARRY = tuple(jax.random.normal(jax.random.key(1), (2, 2, 4)))


def test_one_step_against_the_formula():
    cell = nnx.LSTMCell(3, 4, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0))
    c, h = CARRY
    i, f, o = (
        nnx.sigmoid(x(X) + r(h))
        for x, r in ((cell.ii, cell.hi), (cell.if_, cell.hf), (cell.io, cell.ho))
    )
    new_c = f * c + i * jnp.tanh(cell.ig(X) + cell.hg(h))
    (found_c, found_h), output = cell(CARRY, X)
    np.testing.assert_allclose(found_c, new_c, rtol=1e-6)
    np.testing.assert_allclose(found_h, o * jnp.tanh(new_c), rtol=1e-6)
    assert output is found_h


def test_both_cells_compute_the_same():
    slow = nnx.LSTMCell(3, 4, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0))
    fast = nnx.OptimizedLSTMCell(3, 4, rngs=nnx.Rngs(1))
    beside = lambda *layers: jnp.concatenate(layers, axis=-1)  # noqa: E731
    fast.dense_i.kernel[...] = beside(
        *(x.kernel[...] for x in (slow.ii, slow.if_, slow.ig, slow.io))
    )
    hidden = (slow.hi, slow.hf, slow.hg, slow.ho)
    fast.dense_h.kernel[...] = beside(*(x.kernel[...] for x in hidden))
    fast.dense_h.bias[...] = beside(*(x.bias[...] for x in hidden))
    for a, b in zip(jax.tree.leaves(slow(CARRY, X)), jax.tree.leaves(fast(CARRY, X)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("kind", [nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_options(kind):
    cell = kind(
        3,
        4,
        gate_fn=nnx.hard_sigmoid,
        dtype=jnp.bfloat16,
        param_dtype=jnp.bfloat16,
        kernel_metadata={"tag": "k"},
        recurrent_kernel_metadata={"tag": "r"},
        rngs=nnx.Rngs(0),
    )
    tags = {path[0]: v.get_metadata("tag", None) for path, v in nnx.to_flat_state(nnx.state(cell))}
    assert set(tags.values()) >= {"k", "r"}
    carry = cell.initialize_carry((2, 3))
    assert {x.dtype for x in jax.tree.leaves(cell(carry, X))} == {jnp.dtype(jnp.bfloat16)}
    # A wider carry is rounded, under strict promotion too.
    assert {x.dtype for x in jax.tree.leaves(cell(CARRY, X))} == {jnp.dtype(jnp.bfloat16)}
