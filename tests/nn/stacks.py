"""What the tests of Stacks are about: blocks, in a Stack and one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

import weft as nnx

N, WIDTH = 3, 4


class Block(nnx.Module):
    """A residual perceptron with statistics and noise of its own."""

    def __init__(self, rngs: nnx.Rngs, width: int = WIDTH):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.linear = nnx.Linear(width, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any, shift: Any = None, *, deterministic: bool | None = None) -> Any:
        y = self.dropout(self.linear(self.norm(x)), deterministic=deterministic)
        return x + y if shift is None else x + y + shift


def linear(rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(WIDTH, WIDTH, rngs=rngs)


def unrolled(blocks: Iterable[Any], x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    for block in blocks:
        x = block(x, *args, **kwargs)
    return x


def assert_close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
