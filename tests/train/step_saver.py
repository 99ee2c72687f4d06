"""Processes that save steps in a loop until they are killed: `step_saver.py FOLDER TRIALS SEED`.

Each trial starts one that saves, at a random step's number of its own, with two steps kept and the
best one, so that it also removes; it says the steps that have ended, and is killed at a random
moment. Then the newest step is to be the last of them, or one after it, and be whole, as is the
best. Prints how many trials went well, and after how many something was left to remove.
"""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np

import weft as nnx
from weft.train.checkpoints import Checkpoints

SIZE = 100_000
BEST = 1


def open_steps(folder: str) -> Checkpoints:
    return Checkpoints(folder, keep=2, best="score")


def save_forever(folder: str) -> None:
    checkpoints = open_steps(folder)
    print(0, flush=True)
    variable = nnx.Variable(np.zeros(SIZE))
    for step in range((checkpoints.latest or 0) + 1, 10**9):
        variable.set_value(np.full(SIZE, step * 1.0))
        checkpoints.save(step, meta=step, metrics={"score": -abs(step - BEST)}, x=variable)
        checkpoints.wait()
        print(step, flush=True)


def check(folder: str, acknowledged: int) -> int:
    """Returns the newest step, after looking at all."""
    checkpoints = open_steps(folder)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    steps = checkpoints.steps
    assert not acknowledged or steps[-1] >= acknowledged, (steps, acknowledged)
    assert not steps or checkpoints.best == BEST == steps[0], steps
    variable = nnx.Variable(np.zeros(SIZE))
    for step in steps:
        assert checkpoints.restore(step, x=variable) == step
        assert (variable.get_raw_value() == step).all()
    return steps[-1] if steps else 0


def main(folder: str, trials: str, seed: str) -> None:
    chance = random.Random(int(seed))
    left = newest = 0
    for _ in range(int(trials)):
        command = [sys.executable, __file__, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
        left += any(name.startswith(".") for name in os.listdir(folder))
        newest = check(folder, max([newest, *map(int, said)]))
    print(trials, left, newest)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        save_forever(sys.argv[1])
    main(*sys.argv[1:])
