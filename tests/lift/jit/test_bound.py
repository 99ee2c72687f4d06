"""Jitted methods as attributes: a copy of the object calls the copy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx


class Trainer(nnx.Module):
    def __init__(self) -> None:
        self.w = nnx.Param(jnp.ones(2))
        self.calls = nnx.Variable(jnp.array(0, jnp.int32))
        self.step = nnx.jit(self._step)

    def _step(self, x: Any) -> Any:
        self.calls[...] += 1
        return (self.w * x).sum()


COPIES: dict[str, Callable[[Trainer], Trainer]] = {
    "clone": nnx.clone,
    "merge": lambda t: nnx.merge(*nnx.split(t)),
    "deepcopy": copy.deepcopy,
    "tree map": lambda t: jax.tree.map(lambda x: x, t),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_calls_the_copy(way: str) -> None:
    trainer = Trainer()
    assert float(trainer.step(2.0)) == 4.0
    twin = COPIES[way](trainer)
    twin.w[...] = jnp.array([3.0, 4.0])
    assert float(twin.step(2.0)) == 14.0
    assert (int(trainer.calls[...]), int(twin.calls[...])) == (1, 2)
    assert float(trainer.step(2.0)) == 4.0
    assert float(twin.step.lower(1.0).compile()(1.0)) == 7.0
    assert twin.step.eval_shape(1.0).shape == ()


def test_gradients_go_through() -> None:
    trainer = Trainer()
    grads = nnx.grad(lambda t: t.step(3.0))(trainer)
    np.testing.assert_array_equal(grads["w"], [3.0, 3.0])
    outer = nnx.jit(lambda t, x: t.step(x))
    for i in range(3):
        assert float(outer(trainer, 1.0)) == 2.0 and int(trainer.calls[...]) == i + 2
    assert outer.cache_info().traces == 1


def test_it_is_no_data_and_no_change() -> None:
    trainer = Trainer()
    assert [x.shape for x in jax.tree.leaves(trainer)] == [(), (2,)]
    before = nnx.split(trainer)[0]
    trainer.step(1.0), trainer.step(1.0)
    assert nnx.split(trainer)[0] == before
    assert isinstance(trainer.step, nnx.transforms.compilation.JitWrapped)
    assert trainer.step.__name__ == "_step" and trainer.step.cache_info().traces == 1
