"""What objects held before, put back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft.train.undo import Undo


def test_puts_back_what_a_compiled_step_that_donates_has_changed():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)
    objects = {"model": model, "optimizer": optimizer, "rngs": nnx.Rngs(1)}

    @nnx.jit
    def step(model, optimizer, rngs):
        x = rngs.normal((3, 2))
        grads = nnx.grad(lambda m: m(x).sum())(model)
        optimizer.update(model, grads)

    def bits():
        leaves = jax.tree.leaves(nnx.as_pure(nnx.state(objects)))
        is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
        return [np.asarray(jax.random.key_data(x) if is_key(x) else x).tobytes() for x in leaves]

    kernel = model.kernel
    for _ in range(3):
        step(*objects.values())
        before = bits()
        undo = Undo(objects)
        for _ in range(2):
            step(*objects.values())
        assert bits() != before
        undo.put_back()
        assert bits() == before
    assert model.kernel is kernel
