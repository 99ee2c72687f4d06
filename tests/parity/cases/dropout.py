"""Dropout, with its own stream and with one given at the call."""

import jax
import jax.numpy as jnp

from tests.parity.cases import Case, Layer

SHAPE = (2, 3, 4)


def with_rngs_at_call(nnx, rngs):
    """A model that hands its own streams to a Dropout that has none."""

    class Model(nnx.Module):
        def __init__(self):
            self.dropout = nnx.Dropout(0.5)
            self.rngs = rngs

        def __call__(self, x):
            return self.dropout(x, rngs=self.rngs), self.dropout(x, rngs=self.rngs.dropout)

    return Model()


CASES = [
    *(
        Case(f"Dropout {dtype.__name__}", Layer("Dropout", 0.3), (SHAPE,), dtype)
        for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)
    ),
    Case("Dropout of rows", Layer("Dropout", 0.5, broadcast_dims=(0, -1)), (SHAPE,)),
    Case("Dropout collection", Layer("Dropout", 0.5, rng_collection="params"), (SHAPE,)),
    Case("Dropout default stream", Layer("Dropout", 0.5, rng_collection="noise"), (SHAPE,)),
    Case("Dropout of nothing", Layer("Dropout", 0.0), (SHAPE,)),
    Case("Dropout of everything", Layer("Dropout", 1.0), (SHAPE,)),
    Case("Dropout deterministic", Layer("Dropout", 0.5, deterministic=True), (SHAPE,)),
    Case(
        "Dropout told at the call",
        Layer("Dropout", 0.5, deterministic=None),
        (SHAPE,),
        call={"deterministic": False},
    ),
    Case("Dropout with a key", Layer("Dropout", 0.5), (SHAPE,), call={"rngs": jax.random.key(3)}),
    Case("Dropout with streams at the call", with_rngs_at_call, (SHAPE,)),
]
