"""A program that interrupts its own training loops at random moments.

Its arguments are a signal, how often, and a seed. It prints how many interrupts came through and
how many models they destroyed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import weft as nnx


class Model(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.zeros((8, 8)))
        self.layers = [nnx.Linear(8, 8, rngs=nnx.Rngs(i)) for i in range(4)]
        self.count = nnx.Variable(jnp.zeros((), jnp.int32))


def train(m: Model, x: Any) -> Any:
    m.count[...] = m.count + 1
    for layer in m.layers:
        layer.kernel[...] = layer.kernel * 1.0
        x = layer(x)
    m.w[...] = m.w + 1
    return x.sum()


def train_with_callback(m: Model, x: Any) -> Any:
    jax.debug.callback(lambda: None)
    return train(m, x)


def train_and_print(m: Model, x: Any) -> Any:
    jax.debug.print("", ordered=True)
    return train(m, x)


class Interrupted(BaseException):
    """What the handler of every signal raises."""


def handle(*_: Any) -> None:
    raise Interrupted


def interrupt_after(number: int, seconds: float, ended: threading.Event) -> None:
    """Interrupts until the loop has ended.

    Once is not always enough: JAX has a callback in the garbage collector, and Python drops what is
    raised there, as is an interrupt that came during the collection.
    """
    time.sleep(seconds)
    os.kill(os.getpid(), number)
    while not ended.wait(5):
        os.kill(os.getpid(), number)


def loop_until_interrupted(
    number: int, step: Callable[..., Any], m: Model, x: Any, seconds: float
) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=interrupt_after, args=(number, seconds, ended))
    try:
        thread.start()
        while True:
            step(m, x)
    finally:
        ended.set()
        thread.join()


def is_usable(m: Model) -> bool:
    arrays = jax.tree.leaves(m)
    return not any(x.is_deleted() for x in arrays) and all(np.isfinite(x).all() for x in arrays)


def main(name: str, times: int, seed: int) -> None:
    number = signal.Signals[name]
    signal.signal(number, handle)
    chance = random.Random(seed)
    m, x = Model(), jnp.ones((2, 8))
    compiled = [nnx.jit(f) for f in (train, train_with_callback, train_and_print)]
    for step in compiled:
        step(m, x)
    caught = lost = 0
    for i in range(times):
        is_new = i % 8 == 0  # traced and compiled while the signal comes
        step = nnx.jit(lambda m, x: train(m, x)) if is_new else compiled[i % 3]
        try:
            loop_until_interrupted(number, step, m, x, chance.uniform(0, 0.2 if is_new else 0.004))
        except Interrupted:
            caught += 1
        if not is_usable(m):
            lost += 1
            m = Model()
    print(caught, lost)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
