"""A recurrent layer, with its carry."""

import jax
import jax.numpy as jnp
from flax import nnx

rnn = nnx.RNN(nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0)), return_carry=True)
(c, h), y = rnn(jax.random.normal(jax.random.key(0), (2, 5, 3)))
print(y.shape, f"{y.sum():.5f} {jnp.abs(h - y[:, -1]).max():.1f}")
