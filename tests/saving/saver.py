"""Processes that save in a loop until they are killed: `python saver.py FILE TRIALS SEED`.

Each is forked from this one, which has imported everything and has no threads, and says the numbers
that it has saved. It is killed at a random moment; then the file is to hold the last of them, or
the one after it, whole. Prints how many trials went well.
"""

import os
import random
import signal
import sys
import time

import numpy as np

import weft as nnx

SIZE = 200_000


def save_forever(file: str, start: int, stream: int) -> None:
    for i in range(start, 10**9):
        nnx.save(file, x=nnx.Variable(np.full(SIZE, i)), meta=i)
        os.write(stream, i.to_bytes(8, "little"))


def trial(file: str, start: int, pause: float) -> int:
    """Returns the number that a process which was killed has left."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            save_forever(file, start, write)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        acknowledged = stream.read(8)
        time.sleep(pause)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged = (acknowledged + stream.read())[-8:]
    saved = nnx.load(file)
    array, last = saved["x"], int.from_bytes(acknowledged, "little")
    assert saved.meta in (last, last + 1), (saved.meta, last)
    assert array.shape == (SIZE,) and (array == saved.meta).all()
    return saved.meta


def main(file: str, trials: str, seed: str) -> None:
    chance = random.Random(int(seed))
    folder, name = os.path.split(file)
    left = number = 0
    for _ in range(int(trials)):
        number = trial(file, number + 1, chance.uniform(0, 0.03))
        left += len(os.listdir(folder)) > 1
    nnx.save(file, x=nnx.Variable(1))
    assert os.listdir(folder) == [name], os.listdir(folder)
    print(trials, left)


if __name__ == "__main__":
    main(*sys.argv[1:])
