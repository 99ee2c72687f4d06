"""The Stack that its tests have in common, and an input of it."""

from __future__ import annotations

import jax
import pytest

import weft as nnx
from tests.nn.stacks import WIDTH, Block, N


@pytest.fixture(scope="session")
def made() -> nnx.Stack:
    return nnx.Stack(Block, N, rngs=nnx.Rngs(0))


@pytest.fixture
def stack(made: nnx.Stack) -> nnx.Stack:
    return nnx.clone(made)


@pytest.fixture
def x() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (5, WIDTH))
