"""One of two processes that train together: `run_of_two.py FOLDER RANK PORT [WHAT]`.

The batches are spread over the four devices of both, the model is on each. WHAT is how this one
differs from the other in runs that are tried first ("seed,width,...": see `begin`), or which signal
it gets in which step ("9:15").
"""

import json
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import weft as nnx
from weft import train


class Network(nnx.Module):
    def __init__(self, width, rngs):
        self.first = nnx.Linear(8, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.first(x))))


@nnx.jit
def train_step(model, optimizer, batch):
    def loss_fn(model):
        return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return {"loss": loss}


def place_on(mesh, objects):
    """Makes what objects hold one array of all devices."""
    whole = NamedSharding(mesh, PartitionSpec())

    def place(array):
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(array)))
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    nnx.update(objects, jax.tree.map(place, nnx.state(objects)))


def begin(folder, mesh, rank, what=""):
    """Returns a run, and its step: what of it differs from that of others."""
    model = Network(5 if what == "width" else 16, nnx.Rngs(1 if what == "seed" else 0))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)
    if what != "place":
        place_on(mesh, (model, optimizer))
    x = np.random.default_rng(rank).normal(size=(32, 8)).astype(np.float32)
    loader = train.Loader(
        {"x": x, "y": (x.sum(1, keepdims=True) > 0).astype(np.float32)},
        batch_size=8,
        seed=3 if what == "order" else 2,
    )
    if what == "position":
        next(iter(loader))
    run = train.Run(
        folder,
        state={"model": model, "optimizer": optimizer},
        data=loader,
        steps=50 if what == "steps" else 40,
        save_every=10,
        log_every=5,
        best="loss",
        mode="min",
        facts={"rate": 0.5 if what == "facts" else 0.1},
    )

    def step(part):
        rows = NamedSharding(mesh, PartitionSpec("x"))
        batch = {name: jax.make_array_from_process_local_data(rows, a) for name, a in part.items()}
        return train_step(model, optimizer, batch)

    return run, step


def disagree(folder, mesh, rank, names):
    """Begins runs in which the second process has something else, and prints the errors."""
    for what in names:
        holder = train.Run(folder, state={}, data=[1]) if what == "lock" else None
        try:
            begin(folder, mesh, rank, what if rank else "")
        except Exception as error:
            print(json.dumps([what, type(error).__name__, str(error)]))
        if holder is not None:
            holder.close()


def main(folder, rank, port, what=""):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank), heartbeat_timeout_seconds=10)
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    if "," in what:
        disagree(folder, mesh, int(rank), what.split(","))
    run, step = begin(folder, mesh, int(rank))
    number, _, after = what.partition(":")
    for part in run:
        if after and run.step == int(after):
            os.kill(os.getpid(), int(number))
        if after and run.step > int(after):
            time.sleep(0.2)  # JAX tells the others within about a second
        run.log(step(part))
    print("history", json.dumps(run.history["loss"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
