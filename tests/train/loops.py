"""A loop that counts, for the tests of runs."""

import jax.numpy as jnp

import weft as nnx
from weft import train


def counter():
    return {"count": nnx.Variable(jnp.array(0))}


def go(folder=None, state=None, *, body=None, **options):
    """Runs a loop that counts, and returns the run."""
    state = state or counter()
    options = {"data": [1.0, 2.0, 3.0], "steps": 10, "log_every": 5, "sinks": []} | options
    run = train.Run(folder, state=state, **options)
    for batch in run:
        state["count"][...] += 1
        (body or (lambda run, batch: run.log({"loss": batch})))(run, batch)
    return run
