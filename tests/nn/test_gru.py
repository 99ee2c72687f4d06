import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx

X = jax.random.normal(jax.random.key(0), (2, 3))
CARRY = jax.random.normal(jax.random.key(1), (2, 4))


def test_one_step_against_the_formula():
    cell = nnx.GRUCell(3, 4, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0))
    xr, xz, xn = jnp.split(cell.dense_i(X), 3, axis=-1)
    hr, hz, hn = jnp.split(CARRY @ cell.dense_h.kernel[...], 3, axis=-1)
    z = nnx.sigmoid(xz + hz)
    n = jnp.tanh(xn + nnx.sigmoid(xr + hr) * hn)
    carry, output = cell(CARRY, X)
    np.testing.assert_allclose(carry, (1 - z) * n + z * CARRY, rtol=1e-5)
    assert output is carry


def test_a_wider_carry_under_strict_promotion():
    cell = nnx.GRUCell(3, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert cell(CARRY, X)[0].dtype == jnp.bfloat16
