"""Running a call for which there is a plan: what it costs in Python."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

import weft as nnx
from tests.lift.zoo import Leaf


class Deep(nnx.Module):
    def __init__(self, depth: int):
        self.layers = nnx.List([Leaf() for _ in range(depth)])

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = x + layer.weight
        return x


def frames(call: Callable[[], Any]) -> int:
    """Counts the Python functions that a call enters."""
    number = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal number
        number += event == "call"

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return number


def test_no_python_function_runs_per_variable() -> None:
    @nnx.jit
    def forward(m: Deep, x: Any) -> Any:
        return m(x)

    @nnx.jit
    def train(m: Deep, x: Any) -> Any:
        for layer in m.layers:
            layer.weight[...] = layer.weight + x
        return m(x)

    counted: dict[int, list[int]] = {}
    for depth in (2, 40):
        m, x = Deep(depth), jnp.ones(2)
        for function in (forward, train):
            call = functools.partial(function, m, x)
            for _ in range(3):
                call()
            counted.setdefault(depth, []).append(frames(call))
    assert counted[2] == counted[40]
    reading, writing = counted[40]
    assert reading <= 6
    assert writing <= 30
