"""Programs are compared as users compile them: with all optimizations."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def all_optimizations() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
