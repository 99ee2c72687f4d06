"""A training program with all that makes resuming hard: dropout, shuffling, AdamW, averages.

    python long_run.py FOLDER STEPS [STEPS_PER_CALL]

It prints a line when a step is done, and at the end how often its step was traced.
"""

import sys

import jax.numpy as jnp
import numpy as np
import optax

import weft as nnx
from weft import train

TRACES = []


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(8, 16, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.first(x))))


def loss_fn(model, batch):
    return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)


def plain_step(model, optimizer, batch):
    TRACES.append(1)
    loss, grads = nnx.value_and_grad(loss_fn)(model, batch)
    optimizer.update(model, grads)
    return {"loss": loss}


@nnx.jit
def eval_step(model, batch):
    return {"loss": loss_fn(nnx.view(model, deterministic=True), batch)}


def objects():
    model = Network(nnx.Rngs(0))
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, 400)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    return {"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=nnx.Param)}


def arrays(count=100):
    x = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    return {"x": x, "y": (x.sum(1, keepdims=True) > 0).astype(np.float32)}


def main(folder, steps, steps_per_call=1):
    state = objects()
    loader = train.Loader(arrays(), batch_size=8, seed=1)
    step = nnx.jit(plain_step) if steps_per_call == 1 else train.scanned(plain_step)
    run = train.Run(
        folder,
        state=state,
        data=loader,
        steps=steps,
        save_every=20,
        log_every=10,
        best="val/loss",
        mode="min",
        steps_per_call=steps_per_call,
        sinks=[train.CSV(), train.TensorBoard()],
    )
    for batch in run:
        run.log(step(state["model"], state["optimizer"], batch))
        if run.every(50):
            held_out = train.Loader(arrays(40), batch_size=8, shuffle=False)
            run.log(train.mean(eval_step(state["model"], b) for b in held_out), prefix="val/")
            if run.stale("val/loss", mode="min", patience=1000):
                run.stop("never")
        print(run.step, flush=True)
    print("traces", len(TRACES))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
