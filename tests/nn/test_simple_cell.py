import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 3))
CARRY = jax.random.normal(jax.random.key(1), (2, 4))


def test_one_step_against_the_formula():
    for residual in (False, True):
        cell = nnx.SimpleCell(3, 4, residual=residual, rngs=nnx.Rngs(0))
        hidden = cell.dense_i(X) + CARRY @ cell.dense_h.kernel[...] + float(residual) * CARRY
        carry, output = cell(CARRY, X)
        np.testing.assert_allclose(carry, jnp.tanh(hidden), rtol=1e-5)
        assert output is carry


def test_dtypes_under_strict_promotion():
    cell = nnx.SimpleCell(3, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert cell(CARRY, X)[0].dtype == jnp.bfloat16
    cell = nnx.SimpleCell(3, 4, dtype=jnp.bfloat16, residual=True, rngs=nnx.Rngs(0))
    assert cell(CARRY, X)[0].dtype == jnp.bfloat16
