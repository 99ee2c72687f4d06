"""Initializers as one compiled program each, with the bits that they give uncompiled.

Called as it is, an initializer compiles a program for each operation of it: the draw, the scale,
... Under `jax.jit` all of them would be one, but XLA would simplify and round across their ends:
a scale folded into the draw changes the last bit of some elements. So a *barrier*, which XLA does
not look through, stands here wherever a program ends when the initializer is called as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

barrier = jax.lax.optimization_barrier


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def in_one_program(
    initializer: Callable[..., jax.Array], key: jax.Array, shape: tuple[int, ...], dtype: Hashable
) -> jax.Array:
    """Returns `initializer(key, shape, dtype)`, compiled as one program for all keys.

    Args:
      initializer: an initializer without side effects, hashable by what it does.
      key: a typed PRNG key.
      shape: shape of the array.
      dtype: its dtype, or None.

    Example:
      >>> import jax
      >>> import weft as nnx
      >>> from weft.nn.one_program import in_one_program
      >>> init, key = nnx.initializers.normal(0.02), jax.random.key(0)
      >>> bool((in_one_program(init, key, (64, 192), None) == init(key, (64, 192))).all())
      True
    """
    closed = jax.make_jaxpr(lambda key: initializer(key, shape, dtype))(key)
    values = dict(zip(closed.jaxpr.constvars, map(barrier, closed.consts), strict=True))
    values.update(zip(closed.jaxpr.invars, [key], strict=True))

    def read(atom: Any) -> Any:
        # A literal is an argument of the program where the initializer is called as it is.
        if hasattr(atom, "val"):
            return barrier(jnp.asarray(atom.val, atom.aval.dtype))
        return values[atom]

    for equation in closed.jaxpr.eqns:
        primitive = equation.primitive
        found = primitive.bind(*map(read, equation.invars), **equation.params)
        found = barrier(found if primitive.multiple_results else [found])
        values.update(zip(equation.outvars, found, strict=True))
    return read(closed.jaxpr.outvars[0])
