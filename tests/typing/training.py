# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnnecessaryTypeIgnoreComment=true
"""A training program: what the loop hands out has the type of the data."""

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft import train

Array = np.ndarray[Any, np.dtype[np.float32]]


def examples() -> tuple[Array, Array]:
    x = np.linspace(0, 1, 20, dtype=np.float32).reshape(10, 2)
    return x, x[:, :1]


def loss_fn(model: nnx.Linear, x: Array, y: Array) -> jax.Array:
    return jnp.mean((model(jnp.asarray(x)) - y) ** 2)


@nnx.jit
def train_step(
    model: nnx.Linear, optimizer: nnx.Optimizer[nnx.Linear], batch: tuple[Array, Array]
) -> dict[str, jax.Array]:
    loss, grads = nnx.value_and_grad(loss_fn)(model, *batch)
    optimizer.update(model, grads)
    return {"loss": loss}


def loop() -> None:
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    data = train.Loader(examples(), batch_size=5)
    state = {"model": model, "optimizer": optimizer}
    rows: list[int] = []
    run = train.Run(
        None,
        state=state,
        data=data,
        steps=4,
        log_every=2,
        sinks=[lambda step, row: rows.append(step)],
    )
    for batch in run:
        assert_type(batch, tuple[Array, Array])
        run.log(train_step(model, optimizer, batch))
        if run.every(2):
            run.log(train.mean(jnp.ones(()) for _ in range(2)), prefix="val/")
            if run.stale("val/loss", mode="min", patience=3):
                run.stop("no progress")
    assert_type(run.history["loss"], dict[int, float])
    assert_type(run.stopped, str | None)
    assert rows == [2, 4]


def alone() -> None:
    assert_type(train.mean([1.0, 2.0]), dict[str, float])
    assert_type(next(iter(train.bar([1, 2]))), int)
    many = train.scanned(train_step)
    assert many is not train_step
    assert_type(train.nonfinite_paths({}), list[str])
