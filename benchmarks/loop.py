"""What the loop of weft.train costs: whole runs of a step so small that the loop is what is timed.

The step is that of dispatch.py, Adam on a multilayer perceptron of 5 layers of 8 x 8. It is called
in a bare `for`, and in a `train.Run` that logs it every 20 steps, to a bar and a CSV file; a run is
to cost 50 µs a step more at most. With `steps_per_call=10`, where ten batches go into one call, it
is to be twice as fast at least, and with a folder it saves once, at its end.

Keras' `fit` on JAX and Lightning's `Trainer` on PyTorch train the same network on the same batches,
as plain as they can be made: without a bar, a log or checkpoints. Their own steps are part of what
is timed. A group of their own installs them, as nothing else needs them:

    uv run --group loops python benchmarks/loop.py

    python benchmarks/loop.py            # three minutes
    python benchmarks/loop.py --quick    # half a minute
"""

from __future__ import annotations

import io
import itertools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras

import dispatch_cases as cases
import harness
import numpy as np
from harness import Samples, Variant

import weft as nnx
from weft import train

DEPTH, BATCHES = 5, 64
BARE, TWIN, RUN, MANY = "bare for", "bare for again", "train.Run", "train.Run, steps_per_call=10"
KEPT = "train.Run, with a folder"
MICROSECONDS, FASTER = 50, 2.0
Batch = dict[str, np.ndarray]


def batches() -> list[Batch]:
    rng = np.random.default_rng(0)
    shape = (BATCHES, cases.BATCH, cases.WIDTH)
    x, y = (rng.uniform(size=shape).astype(np.float32) for _ in range(2))
    return [{"x": x[i], "y": y[i]} for i in range(BATCHES)]


def weft_step() -> Callable[..., Any]:
    step = cases.nnx_step(nnx)
    return lambda model, optimizer, batch: {"loss": step(model, optimizer, batch["x"], batch["y"])}


def bare(steps: int) -> Callable[[], Any]:
    model, optimizer = cases.model_and_optimizer(nnx, DEPTH)
    step, data = nnx.jit(weft_step()), batches()

    def call() -> Any:
        loss = None
        for batch in itertools.islice(itertools.cycle(data), steps):
            loss = step(model, optimizer, batch)
        return loss

    return call


def weft_run(steps: int, **options: Any) -> Callable[[], Any]:
    """Returns a call that makes a run and goes through it; `folder` gives each one of its own."""
    model, optimizer = cases.model_and_optimizer(nnx, DEPTH)
    several = options.get("steps_per_call", 1) > 1
    step, data = train.scanned(weft_step()) if several else nnx.jit(weft_step()), batches()

    def call() -> Any:
        values = None
        with tempfile.TemporaryDirectory() as folder:
            sinks = [train.Bar(io.StringIO()), train.CSV(f"{folder}/metrics.csv")]
            run = train.Run(
                folder if options.get("folder") else None,
                state={"model": model, "optimizer": optimizer},
                data=data,
                steps=steps,
                save_every=10**9,
                sinks=sinks,
                **{name: value for name, value in options.items() if name != "folder"},
            )
            for batch in run:
                values = step(model, optimizer, batch)
                run.log(values)
        return values

    return call


# -- peers


def keras_fit(keras: Any, steps: int) -> Callable[[], Any]:
    layers = [keras.layers.Dense(cases.WIDTH, activation="tanh") for _ in range(DEPTH)]
    model = keras.Sequential([keras.Input((cases.WIDTH,)), *layers])
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    pairs = [(batch["x"], batch["y"]) for batch in batches()]

    def endless() -> Iterable[Any]:
        yield from itertools.cycle(pairs)

    return lambda: model.fit(endless(), steps_per_epoch=steps, epochs=1, verbose=0) and None


def lightning_trainer(lightning: Any, steps: int) -> Callable[[], Any]:
    import logging

    import torch

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # a matrix of 8 x 8 is no work for two

    class Network(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            linear = [torch.nn.Linear(cases.WIDTH, cases.WIDTH) for _ in range(DEPTH)]
            layers = [layer for each in linear for layer in (each, torch.nn.Tanh())]
            self.layers = torch.nn.Sequential(*layers)

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            return torch.nn.functional.mse_loss(self.layers(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-3)

    pairs = [tuple(torch.from_numpy(array) for array in batch.values()) for batch in batches()]
    loader = torch.utils.data.DataLoader(pairs, batch_size=None)
    model = Network()

    def call() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises on loaders and loggers
            trainer = lightning.Trainer(
                max_steps=steps,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(model, loader)

    return call


def variants(steps: int) -> list[Variant]:
    calls = {
        BARE: bare(steps),
        TWIN: bare(steps),
        RUN: weft_run(steps),
        KEPT: weft_run(steps, folder=True),
        MANY: weft_run(steps, steps_per_call=10),
    }
    if keras := harness.peer("keras"):
        calls["Keras fit, on JAX"] = keras_fit(keras, steps)
    if lightning := harness.peer("lightning"):
        calls["Lightning Trainer, on PyTorch"] = lightning_trainer(lightning, steps)
    return [Variant(name, call) for name, call in calls.items()]


# -- the report


def rows_of(samples: Samples, steps: int) -> list[list[str]]:
    rows = []
    for name, seconds in samples.items():
        over = (
            harness.median([(a - b) for a, b in zip(seconds, samples[BARE], strict=True)]) / steps
        )
        faster = harness.ratio(samples, RUN, name)
        judged = {
            RUN: f"at most {MICROSECONDS} µs over: {harness.verdict(over * 1e6 <= MICROSECONDS)}",
            MANY: f"{FASTER:g} × as fast: {harness.verdict(faster >= FASTER)}",
        }
        rows.append(
            [
                name,
                harness.duration(harness.median(seconds) / steps),
                f"{over * 1e6:+.1f} µs",
                f"{1 / faster:.2f}",
                judged.get(name, ""),
            ]
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.make_parser(__doc__ or "", full=40, quick=7)
    options = harness.read_options(parser, arguments)
    steps = 200 if options.quick else 1000
    samples = harness.measure(variants(steps), options, seconds=0.0)
    header = ["loop", "a step", "over the bare for", "its time ÷ train.Run's", ""]
    body = f"Runs of {steps:,} steps.\n\n{harness.table(header, rows_of(samples, steps))}"
    harness.publish("Loop", body, options)


if __name__ == "__main__":
    sys.exit(main())
