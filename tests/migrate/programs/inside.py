"""Imports stand in functions, after try, and several on a line."""

import flax, jax  # noqa

try:
    from flax import nnx
except ImportError:
    nnx = None


def count():
    from flax.nnx import variablelib

    return sum(isinstance(v, variablelib.Param) for v in jax.tree.leaves(nnx.state(model), is_leaf=lambda x: isinstance(x, nnx.Variable)))


model = flax.nnx.Linear(2, 3, rngs=nnx.Rngs(0))
print(count(), hasattr(flax, "__path__"))
